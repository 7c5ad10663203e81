"""Arrival processes: the times at which requests arrive, for a given mean rate.

Each process is a renewal process of unit rate on a clock that runs at the process's intensity: request k arrives when
the integral of the intensity reaches the k-th point. Gaps and intensity are drawn from separate random streams, so that
a longer run continues the pattern of a shorter one. Every process starts in its stationary state, so the expected
number of arrivals in the first t seconds is exactly t times the mean rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Protocol

import numpy as np
from numpy.random import Generator

from envs.workload import FloatArray
from hardware_profiles.errors import InputError

# Periods are always drawn in blocks of this size, so that a longer run begins with the same ones.
_BLOCK = 256


class ArrivalProcess(Protocol):
    """A random process of request arrivals."""

    @property
    def mean_rate_rps(self) -> float:
        """Mean number of arrivals per second."""

    def times_s(self, count: int, gaps: Generator, intensity: Generator) -> FloatArray:
        """Return (count,) arrival times in seconds, sorted.

        Args:
            count: number of arrivals.
            gaps: random stream of the gaps.
            intensity: random stream of the intensity.
        """


@dataclass(frozen=True)
class FixedRate:
    """Evenly spaced arrivals, one per second by default; the first arrives after one gap."""

    mean_rate_rps: float = 1.0

    def times_s(self, count: int, gaps: Generator, intensity: Generator) -> FloatArray:  # noqa: ARG002
        """See ArrivalProcess."""
        return np.arange(1, count + 1) / self.mean_rate_rps


@dataclass(frozen=True)
class GammaRenewal:
    """Independent Gamma gaps, with one arrival per second on average by default.

    `shape` is vLLM bench's `--burstiness`, and 1 / CV^2 in DistServe's terms; 1 is the Poisson process. Because the
    gaps are independent, a burst lasts for only a few of them; use Mmpp or OnOff for bursts.
    """

    shape: float = 1.0
    mean_rate_rps: float = 1.0

    def times_s(self, count: int, gaps: Generator, intensity: Generator) -> FloatArray:  # noqa: ARG002
        """See ArrivalProcess."""
        # At a random moment, the gap in progress is length-biased and partly over.
        first = gaps.standard_gamma(self.shape + 1) * gaps.random()
        rest = gaps.standard_gamma(self.shape, count - 1)
        return np.cumsum(np.concatenate([[first], rest])) / (self.shape * self.mean_rate_rps)


@dataclass(frozen=True)
class Mmpp:
    """Markov-modulated Poisson process that cycles through its states in order (with two states, every MMPP does).

    Attributes:
        rates_rps: the rate in each state; (r, 0) is the interrupted Poisson process, an ON/OFF source.
        sojourns_s: mean of the exponential time in each state.
    """

    rates_rps: tuple[float, ...]
    sojourns_s: tuple[float, ...]

    def __post_init__(self) -> None:
        rates, sojourns = self.rates_rps, self.sojourns_s
        if len(rates) != len(sojourns) or not (max(rates, default=0) > 0 and min(rates) >= 0 and min(sojourns) > 0):
            raise InputError(
                f"Mmpp({rates}, {sojourns}): needs rates of 0 or more, one above 0, each with a sojourn above 0"
            )

    @property
    def mean_rate_rps(self) -> float:
        """Mean number of arrivals per second."""
        return float(np.dot(self.rates_rps, self.sojourns_s) / np.sum(self.sojourns_s))

    def times_s(self, count: int, gaps: Generator, intensity: Generator) -> FloatArray:
        """See ArrivalProcess."""
        sojourns_s = np.array(self.sojourns_s)
        at = intensity.choice(len(sojourns_s), p=sojourns_s / sojourns_s.sum())
        rates = np.tile(np.roll(self.rates_rps, -at), _BLOCK)

        def block() -> tuple[FloatArray, FloatArray]:
            stays = intensity.standard_exponential((_BLOCK, len(sojourns_s))) * np.roll(sojourns_s, -at)
            return stays.ravel(), rates

        return _on_clock(GammaRenewal().times_s(count, gaps, intensity), block)


@dataclass(frozen=True)
class OnOff:
    """Bursts with different rates and Gamma gaps, separated by heavy-tailed silences.

    Attributes:
        on_s: mean of the exponential length of a burst.
        off_log_mean: mean of the natural logarithm of a silence in seconds, which is lognormal.
        off_log_sd: standard deviation of the same logarithm.
        burst_rps: mean over bursts of the rate within a burst, which is lognormal.
        burst_log_sd: standard deviation of its natural logarithm.
        gap_shape: shape of the Gamma gaps inside bursts.
    """

    on_s: float
    off_log_mean: float
    off_log_sd: float
    burst_rps: float
    burst_log_sd: float
    gap_shape: float

    @property
    def _on_share(self) -> float:
        return self.on_s / (self.on_s + exp(self.off_log_mean + self.off_log_sd**2 / 2))

    @property
    def mean_rate_rps(self) -> float:
        """Mean number of arrivals per second."""
        return self.burst_rps * self._on_share

    def times_s(self, count: int, gaps: Generator, intensity: Generator) -> FloatArray:
        """See ArrivalProcess."""
        # At a random moment, a silence in progress is length-biased (again lognormal, with its log-mean increased by
        # the log-variance), and its remainder is a uniform share of it. The remainder of an exponential burst is
        # distributed like a whole one.
        silence_s = intensity.lognormal(self.off_log_mean + self.off_log_sd**2, self.off_log_sd)
        left_s = silence_s * intensity.random() * (intensity.random() >= self._on_share)

        def block() -> tuple[FloatArray, FloatArray]:
            on_s = intensity.standard_exponential(_BLOCK) * self.on_s
            off_s = intensity.lognormal(self.off_log_mean, self.off_log_sd, _BLOCK)
            log_mean = np.log(self.burst_rps) - self.burst_log_sd**2 / 2
            rates = intensity.lognormal(log_mean, self.burst_log_sd, _BLOCK)
            return np.stack([on_s, off_s], axis=1).ravel(), np.stack([rates, 0 * rates], axis=1).ravel()

        return left_s + _on_clock(GammaRenewal(self.gap_shape).times_s(count, gaps, intensity), block)


def surge(times: FloatArray, factor: float, span: float) -> FloatArray:
    """Return unit-rate arrivals with the rate raised to `factor` in the middle third of [0, span]."""
    edges = np.array([0.0, 1.0, 2.0, 3.0]) * (span / 3)
    area = np.cumsum([0.0, 1.0, factor, 1.0]) * (span / 3)
    after = times - area[-1]
    return np.where(after > 0, span + after, np.interp(times, area, edges))


def _on_clock(points: FloatArray, block: Callable[[], tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Return the times at which the integrated intensity reaches `points`; `block` draws (durations_s, rates_rps)."""
    edges_s: list[FloatArray] = [np.zeros(1)]
    areas: list[FloatArray] = [np.zeros(1)]
    while areas[-1][-1] <= points[-1]:
        durations_s, rates_rps = block()
        edges_s.append(_continued(edges_s, durations_s))
        areas.append(_continued(areas, durations_s * rates_rps))
    # A silence is a jump of the inverse; the probability that a point falls on it is 0.
    return np.interp(points, np.concatenate(areas), np.concatenate(edges_s))


def _continued(sums: Sequence[FloatArray], values: FloatArray) -> FloatArray:
    result: FloatArray = sums[-1][-1] + np.cumsum(values)
    return result
