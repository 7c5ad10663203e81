"""Bootstrap intervals: 95 %, from fixed random streams, so the same numbers give the same intervals.

Policies run on common random numbers, so pairs are resampled: of seeds where there are several, of blocks of
consecutive requests where there is one run.
"""

from functools import cache
from math import ceil, nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 4000
BLOCK_RESAMPLES = 1000
BLOCKS = 20  # 10 to 30 serve batch means best (Schmeiser 1982)
LEVEL = 0.95
_STREAM = 20260702
_STRETCHES = 512

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its 95 % interval; low and high are nan where nothing could be resampled."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def _interval(value: float, resampled: Floats, units: int) -> Interval:
    """The percentile interval of `resampled`, widened for few units.

    A plain percentile interval is too narrow by sqrt((n - 1) / n) and by the normal instead of the t distribution;
    shifting its tails makes up for both (the expanded percentile interval of Hesterberg 2015, "What teachers should
    know about the bootstrap"). Percentiles cannot leave the range of the units, which holds the truth with
    probability 1 - 2^(1 - n) only, so below five units the interval is Student's, with the bootstrap's spread.
    """
    if units < 2:
        return Interval(value, nan, nan)
    few = sqrt(units / (units - 1))
    t = float(stats.t.ppf((1 + LEVEL) / 2, units - 1))
    if units < 5:
        half = t * few * float(resampled.std())
        return Interval(value, value - half, value + half)
    tail = float(stats.norm.cdf(-few * t))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


@cache
def _draws(units: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Indices drawn with replacement, shape (resamples, units)."""
    drawn = np.random.default_rng(_STREAM).integers(units, size=(resamples, units))
    drawn.flags.writeable = False  # the next caller gets it too
    return drawn


def mean_interval(values: ArrayLike) -> Interval:
    """Mean over seeds; of paired differences, the interval a claim rests on.

    Args:
        values: one number a seed, shape (seeds,).
    """
    sample = np.asarray(values, dtype=np.float64)
    return _interval(float(sample.mean()), sample[_draws(len(sample))].mean(axis=1), len(sample))


def ratio_interval(values: ArrayLike, base: ArrayLike) -> Interval:
    """Mean of `values` over mean of `base`, pairs of seeds resampled together; shape (seeds,) each."""
    top, bottom = np.asarray(values, dtype=np.float64), np.asarray(base, dtype=np.float64)
    drawn = _draws(len(top))
    resampled = top[drawn].mean(axis=1) / bottom[drawn].mean(axis=1)
    return _interval(float(top.mean() / bottom.mean()), resampled, len(top))


def _block_resampled(values: Floats, q: float) -> Floats:
    """Quantiles of `values`, shape (runs, requests), each with blocks of consecutive requests drawn again.

    Neighbours share a queue, so single requests are not independent; twentieths of a run nearly are. The
    draws depend on the number of requests alone, so two policies on the same requests are resampled in
    pairs.
    """
    runs, requests = values.shape
    blocks = min(BLOCKS, requests)
    block_of = np.tile(np.arange(requests) * blocks // requests, runs)
    order = np.argsort(values, axis=None, kind="stable")
    ranked, block_of = values.ravel()[order], block_of[order]
    # How often each block was drawn weighs its values. Of the weights summed up along the ranks only those at the ends
    # of some hundred stretches are needed for all draws; within the stretch that holds the quantile, for one draw.
    stretch = ceil(len(ranked) / _STRETCHES)
    stretches = [block_of[start : start + stretch] for start in range(0, len(ranked), stretch)]
    in_stretch = np.array([np.bincount(part, minlength=blocks) for part in stretches])
    weights = np.array([np.bincount(drawn, minlength=blocks) for drawn in _draws(blocks, BLOCK_RESAMPLES)])
    up_to_end = np.cumsum(weights @ in_stretch.T, axis=1)
    resampled = np.empty(BLOCK_RESAMPLES)
    for row, (weight, ends) in enumerate(zip(weights, up_to_end, strict=True)):
        target = q * ends[-1]
        at = int(np.searchsorted(ends, target))
        up_to = np.cumsum(weight[stretches[at]]) + (ends[at - 1] if at else 0)
        resampled[row] = ranked[at * stretch + np.searchsorted(up_to, target)]
    return resampled


def quantile_interval(values: Floats, q: float) -> Interval:
    """A quantile over the requests of one workload.

    Args:
        values: a number a request in order of arrival, shape (runs, requests); runs share requests.
        q: the quantile, in [0, 1].
    """
    return _interval(float(np.quantile(values, q)), _block_resampled(values, q), min(BLOCKS, values.shape[1]))


def quantile_difference(values: Floats, base: Floats, q: float) -> Interval:
    """Difference of a quantile between two policies on the same requests; as in quantile_interval."""
    value = float(np.quantile(values, q) - np.quantile(base, q))
    resampled = _block_resampled(values, q) - _block_resampled(base, q)
    return _interval(value, resampled, min(BLOCKS, values.shape[1]))


def quantile_ratio(values: Floats, base: Floats, q: float) -> Interval:
    """Ratio of a quantile between two policies on the same requests; as in quantile_interval."""
    value = float(np.quantile(values, q) / np.quantile(base, q))
    resampled = _block_resampled(values, q) / _block_resampled(base, q)
    return _interval(value, resampled, min(BLOCKS, values.shape[1]))


def block_mean_interval(values: Floats) -> Interval:
    """Mean over the requests of one workload, blocks resampled; arguments as in quantile_interval."""
    by_request = values.mean(axis=0)
    blocks = np.array_split(by_request, min(BLOCKS, len(by_request)))
    sums, sizes = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    drawn = _draws(len(blocks), BLOCK_RESAMPLES)
    resampled = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return _interval(float(values.mean()), resampled, len(blocks))


def _strata(scores: Floats) -> Floats:
    """Scores (seeds, cells) with the seeds of each cell drawn apart, shape (RESAMPLES / 4, seeds, cells)."""
    seeds, cells = scores.shape
    drawn = np.random.default_rng(_STREAM).integers(seeds, size=(RESAMPLES // 4, seeds, cells))
    return scores[drawn, np.arange(cells)]


def interquartile_mean(scores: ArrayLike) -> Interval:
    """Mean of the middle half of all scores, with a stratified bootstrap (Agarwal et al., arXiv 2108.13264).

    Args:
        scores: shape (seeds, cells); seeds are resampled within each cell.
    """
    sample = np.asarray(scores, dtype=np.float64)
    drawn = _strata(sample)
    resampled = np.asarray(stats.trim_mean(drawn.reshape(len(drawn), -1), 0.25, axis=1))
    return _interval(float(stats.trim_mean(sample, 0.25, axis=None)), resampled, len(sample))


def probability_below(values: ArrayLike, base: ArrayLike) -> Interval:
    """How probable it is that `values` is below `base` on the same requests; ties count half.

    The paired form of Agarwal et al.'s probability of improvement, for scores of which less is better:
    pairs of different seeds would mostly compare the seeds.

    Args:
        values: shape (seeds, cells).
        base: shape (seeds, cells).
    """
    difference = np.asarray(values, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    wins = (difference < 0) + 0.5 * (difference == 0)
    return _interval(float(wins.mean()), _strata(wins).mean(axis=(1, 2)), len(wins))
