"""Token-length distributions: mixtures of lognormals with optional bounds and Pareto tail."""

from dataclasses import dataclass
from math import inf, log
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from envs.workload import FloatArray, IntArray


class LogNormal(NamedTuple):
    """A lognormal part of a mixture; log_mean and log_sd refer to the natural logarithm of tokens."""

    log_mean: float
    log_sd: float
    weight: float = 1.0


class ParetoTail(NamedTuple):
    """A Pareto distribution of index `alpha`, truncated at `end` tokens, that replaces lengths above `start` tokens."""

    start: float
    alpha: float
    end: float


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts, drawn by inverse transform from three uniforms per request, in request order.

    Attributes:
        parts: parts of the mixture.
        above: every length is above this many tokens (the distribution is truncated, not clipped).
        up_to: every length is at most this many tokens (truncated, too).
        tail: tail of the mixture; None: no tail.
        cap: longer lengths are clipped to it, like those of a trace recorded with a context limit.
    """

    parts: tuple[LogNormal, ...]
    above: int = 0
    up_to: float = inf
    tail: ParetoTail | None = None
    cap: float = inf

    @property
    def longest(self) -> float:
        """The largest possible length, tokens."""
        return min(self.up_to, self.cap, self.tail.end if self.tail else inf)

    def draw(self, count: int, rng: Generator, cap: float = inf) -> IntArray:
        """Return (count,) lengths in tokens, clipped to `cap`."""
        # One row per request, so that a longer draw from the same stream begins with the shorter one.
        which, where, tail_where = rng.random((count, 3)).T
        log_means, log_sds, weights = np.array(self.parts).T
        part = np.searchsorted(np.cumsum(weights)[:-1] / weights.sum(), which, side="right")
        mean, sd = log_means[part], log_sds[part]
        low = ndtr((log(self.above) - mean) / sd) if self.above else 0.0
        high = ndtr((log(self.up_to) - mean) / sd) if self.up_to < inf else 1.0
        tokens = np.exp(mean + sd * ndtri(low + (high - low) * where))
        if self.tail:
            tokens = np.where(tokens > self.tail.start, _pareto(self.tail, tail_where), tokens)
        clipped: FloatArray = np.clip(np.ceil(tokens), self.above + 1, min(self.longest, cap))
        return clipped.astype(np.int64)


def _pareto(tail: ParetoTail, where: FloatArray) -> FloatArray:
    inside = 1 - (tail.start / tail.end) ** tail.alpha
    return np.asarray(tail.start * (1 - where * inside) ** (-1 / tail.alpha), dtype=np.float64)
