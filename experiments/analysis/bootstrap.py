"""Bootstrap intervals: 95 %, from fixed random streams, so the same numbers give the same intervals.

Policies run on common random numbers, so pairs are resampled: pairs of seeds if there are several, of blocks of
consecutive requests if there is one run. All estimates of equal size share their draws, and an `Estimate` keeps its
replicates: ratios and differences of two estimates are therefore paired.

Latencies and their ratios are positive, so their intervals are taken on the logarithmic scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 4000
BLOCK_RESAMPLES = 1000
BLOCKS = 20  # 10 to 30 serve batch means best (Schmeiser 1982)
LEVEL = 0.95
FEWEST_UNITS = 5
"""With fewer seeds (or blocks) no tie is claimed: the interval is too wide for that to mean anything."""
MAX_T_UNITS = 10
"""With fewer, simultaneous intervals are Bonferroni's; see `simultaneous`."""
_STREAM = 20260702
_CLUSTER_STREAM = 20261101

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its 95 % interval; low and high are nan if nothing could be resampled."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the whole interval lies on one side of `value`."""
        return self.low > value or self.high < value


@dataclass(frozen=True)
class Estimate:
    """An estimate with its bootstrap replicates, shape (resamples,), and the number of seeds or blocks resampled."""

    value: float
    replicates: Floats
    units: int

    def over(self, base: "Estimate") -> "Estimate":
        """The ratio to another estimate, paired."""
        return Estimate(self.value / base.value, self.replicates / base.replicates, self.units)

    def minus(self, base: "Estimate") -> "Estimate":
        """The difference from another estimate, paired."""
        return Estimate(self.value - base.value, self.replicates - base.replicates, self.units)

    def interval(self, *, log: bool = False) -> Interval:
        """The percentile interval of the replicates, widened for few units.

        A plain percentile interval is too narrow by sqrt((n - 1) / n) and by the normal instead of the t distribution;
        shifting its tails makes up for both (the expanded percentile interval of Hesterberg 2015, "What teachers should
        know about the bootstrap"). Percentiles cannot leave the range of the units, which holds the truth with
        probability 1 - 2^(1 - n) only, so below FEWEST_UNITS the interval is Student's, with the bootstrap's spread.
        With `log`, for latencies and ratios, Student's is taken on the logarithmic scale; percentiles are the same on
        both scales.
        """
        if self.units < 2:
            return Interval(self.value, nan, nan)
        few, t = _widening(self.units)
        if self.units < FEWEST_UNITS:
            return self.around(t * few * self.spread(log), log)
        tail = float(stats.norm.cdf(-few * t))
        low, high = np.quantile(self.replicates, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high))

    def spread(self, log: bool) -> float:
        """Standard deviation of the replicates, or of their logarithms."""
        return float((np.log(self.replicates) if log else self.replicates).std())

    def around(self, half: float, log: bool) -> Interval:
        """The interval that reaches `half` to both sides, on the linear or the logarithmic scale."""
        value = self.value
        low, high = (value * np.exp(-half), value * np.exp(half)) if log else (value - half, value + half)
        return Interval(value, low, high)


def simultaneous(estimates: Sequence[Estimate], *, log: bool = False) -> list[Interval]:
    """95 % intervals that hold together: max-T over the estimates (Westfall and Young 1993; Romano and Wolf 2005).

    Each interval is the estimate plus and minus a multiple of its bootstrap spread. The multiple is the 95th
    percentile, over resamples, of the largest deviation of any estimate in units of its spread, never below that of a
    single estimate, and widened for few units as in `Estimate.interval`. Resamples of fewer than MAX_T_UNITS show too
    little of how far the largest of several deviations goes (of 15 policies and 5 seeds, all intervals held in 78 % of
    simulations), so then the multiple is Bonferroni's: Student's t at 5 % divided by the number of estimates.
    The estimates have the same draws, such as the ratio of every policy to the best.
    """
    if not estimates or estimates[0].units < 2:
        return [Interval(one.value, nan, nan) for one in estimates]
    units, spreads = estimates[0].units, [one.spread(log) for one in estimates]
    if units < MAX_T_UNITS:
        normal = -float(stats.norm.ppf((1 - LEVEL) / 2 / len(estimates)))
    else:
        scaled = [np.log(one.replicates / one.value) if log else one.replicates - one.value for one in estimates]
        moving = [np.abs(deviation) / spread for deviation, spread in zip(scaled, spreads, strict=True) if spread > 0]
        largest = float(np.quantile(np.max(moving, axis=0), LEVEL)) if moving else 0.0
        normal = max(largest, float(stats.norm.ppf((1 + LEVEL) / 2)))
    few, _ = _widening(units)
    multiple = few * float(stats.t.isf(stats.norm.sf(normal), units - 1))
    return [one.around(multiple * spread, log) for one, spread in zip(estimates, spreads, strict=True)]


def _widening(units: int) -> tuple[float, float]:
    """The factors by which the bootstrap's spread is too small, and Student's t."""
    return sqrt(units / (units - 1)), float(stats.t.ppf((1 + LEVEL) / 2, units - 1))


@cache
def _draws(units: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Indices drawn with replacement, shape (resamples, units)."""
    drawn = np.random.default_rng(_STREAM).integers(units, size=(resamples, units))
    drawn.flags.writeable = False  # the next caller gets the same array
    return drawn


def seed_mean(values: ArrayLike) -> Estimate:
    """Mean over seeds of values, shape (seeds,)."""
    sample = np.asarray(values, dtype=np.float64)
    return Estimate(float(sample.mean()), sample[_draws(len(sample))].mean(axis=1), len(sample))


def block_mean(values: Floats) -> Estimate:
    """Mean over the requests of one workload, blocks of consecutive requests resampled.

    The values, shape (runs, requests), are in order of arrival; runs share requests.
    """
    by_request = values.mean(axis=0)
    blocks = np.array_split(by_request, min(BLOCKS, len(by_request)))
    sums, sizes = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    drawn = _draws(len(blocks), BLOCK_RESAMPLES)
    return Estimate(float(values.mean()), sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), len(blocks))


def block_quantile(values: Floats, q: float) -> Estimate:
    """The q-quantile of values as in `block_mean`.

    Neighbours share a queue, so single requests are not independent; twentieths of a run nearly are.
    """
    runs, requests = values.shape
    blocks = min(BLOCKS, requests)
    block_of = np.tile(np.arange(requests) * blocks // requests, runs)
    order = np.argsort(values, axis=None, kind="stable")
    ranked, block_of = values.ravel()[order], block_of[order]
    resampled = np.empty(BLOCK_RESAMPLES)
    for row, drawn in enumerate(_draws(blocks, BLOCK_RESAMPLES)):
        up_to = np.cumsum(np.bincount(drawn, minlength=blocks)[block_of])  # how often each block was drawn weighs it
        resampled[row] = ranked[np.searchsorted(up_to, q * up_to[-1])]
    return Estimate(float(np.quantile(values, q)), resampled, blocks)


def stratified(statistic: Callable[..., Floats], *scores: ArrayLike) -> Estimate:
    """A statistic of scores (seeds, cells), the seeds of each cell resampled apart (Agarwal et al., arXiv 2108.13264).

    The statistic is of one array per score, shape (resamples, seeds, cells), and returns shape (resamples,).
    """
    samples = [np.asarray(score, dtype=np.float64) for score in scores]
    seeds, cells = samples[0].shape
    drawn = np.random.default_rng(_STREAM).integers(seeds, size=(RESAMPLES // 4, seeds, cells))
    replicates = statistic(*[sample[drawn, np.arange(cells)] for sample in samples])
    return Estimate(float(statistic(*[sample[None] for sample in samples])[0]), replicates, seeds)


def interquartile_mean(scores: Floats) -> Floats:
    """Mean of the middle half of all scores, shape (resamples,); for `stratified`."""
    return np.asarray(stats.trim_mean(scores.reshape(len(scores), -1), 0.25, axis=1))


def probability_below(values: Floats, base: Floats) -> Floats:
    """How often `values` is below `base` on the same requests, ties counting half; for `stratified`.

    The paired form of Agarwal et al.'s probability of improvement, for scores of which less is better: pairs of
    different seeds would mostly compare the seeds.
    """
    return np.asarray(((values < base) + 0.5 * (values == base)).mean(axis=(1, 2)))


def geometric_mean_ratio(values: Floats, base: Floats) -> Floats:
    """Geometric mean over cells of the ratio of means over seeds; for `stratified`."""
    return np.asarray(np.exp(np.log(values.mean(axis=1) / base.mean(axis=1)).mean(axis=1)))


def clustered(
    statistic: Callable[[Floats, Floats], Floats], values: Floats, run_of: NDArray[np.int64], runs: int
) -> Interval:
    """A statistic over events with its interval over runs drawn again, each with all its events.

    The statistic is of values (events,) with weights (draws, events), and returns shape (draws,); `run_of` is the
    number of the run, below `runs`, that each event is of.
    """
    if not len(values):
        return Interval(nan, nan, nan)
    value = float(statistic(values, np.ones((1, len(values))))[0])
    if len(np.unique(run_of)) < FEWEST_UNITS:
        return Interval(value, nan, nan)
    drawn = np.random.default_rng(_CLUSTER_STREAM).multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES)
    weights = drawn[:, run_of].astype(float)
    resampled = statistic(values, weights[weights.any(axis=1)])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(value, float(low), float(high))


def seed_means_interval(values: Floats, statistic: Callable[[Floats], float], value: float) -> Interval:
    """The interval around `value` of a positive statistic of the mean of curves (seeds, points), logarithmic scale."""
    means = values[_draws(len(values), BLOCK_RESAMPLES)].mean(axis=1)
    return Estimate(value, np.array([statistic(mean) for mean in means]), len(values)).interval(log=True)
