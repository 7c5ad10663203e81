"""The knee: the highest rate at which a policy still meets the SLOs of most requests.

The knee of `static` is the unit of every other load; `experiments.capacity` compares the knees of all policies.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from envs.cluster import ClusterConfig, Policy, simulate
from envs.slos import Slos
from experiments.analysis.bootstrap import Floats, Interval, seed_means_interval
from experiments.analysis.metrics import MeasuredRun
from experiments.analysis.request_table import DRAIN_S
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.data_splits import KNEE_SEEDS
from experiments.runs.requests import Family, Source, TraceRequests
from hardware_profiles import InputError
from hardware_profiles.files import replacing
from policies import PolicySpec

TARGET = 0.9
"""Share of requests that meet both SLOs at the knee."""
TOLERANCE = 0.02
KNEE_REQUESTS = 2000
KNEE_SPAN_S = 20.0
"""The runs of a knee: this many requests, or as many more as arrive in this time. Not from a paper."""
_OVERLOADED = 0.5
_LOWEST_RPS, _HIGHEST_RPS = 1 / 64, 4096.0


class Knee(NamedTuple):
    """The result of a search.

    A rule may break the TBT SLO at a load and not at a higher one; `dipped` says whether the target was missed below.
    """

    rate_rps: float  # 0 if the target is missed at every rate, inf if it is met at every rate
    dipped: bool
    tried: dict[float, list[float]]  # attainment of each seed by rate

    @property
    def interval_rps(self) -> Interval:
        """The knee with its 95 % interval over seeds: where the resampled attainment, between the rates tried, crosses.

        The knee is the highest rate tried that met the target, up to TOLERANCE below the crossing, so a narrower
        interval is extended to it. nan bounds for fewer than two seeds, or if there is no knee.
        """
        if not 0 < self.rate_rps < inf:
            return Interval(self.rate_rps, np.nan, np.nan)
        rates = sorted(self.tried)
        by_seed = np.array([self.tried[rate] for rate in rates]).T
        value, low, high = seed_means_interval(by_seed, lambda means: _crossing(np.array(rates), means), self.rate_rps)
        return Interval(value, float(np.minimum(low, value)), float(np.maximum(high, value)))  # nan stays nan


def _crossing(rates: Floats, attainment: Floats) -> float:
    """The highest rate at which attainment is TARGET, interpolated in the logarithm of the rate."""
    met = np.flatnonzero(attainment >= TARGET)
    if not len(met) or met[-1] + 1 == len(rates):
        return float(rates[met[-1]] if len(met) else rates[0])
    low, high = met[-1], met[-1] + 1
    share = (attainment[low] - TARGET) / (attainment[low] - attainment[high])
    return float(rates[low] * (rates[high] / rates[low]) ** share)


def find_knee(attainment_at: Callable[[float], Sequence[float]]) -> Knee:
    """The highest rate at which mean attainment is at least TARGET.

    Double the rate from 1 request per second until attainment drops below 0.5 (dips never go that low). If no rate met
    TARGET, halve instead. Then bisect, in log space, above the highest rate that met it, until the ends are within 2 %.
    `attainment_at` gives the attainment of each seed, in [0, 1], at a rate in requests per second.
    """
    tried: dict[float, list[float]] = {}
    means: dict[float, float] = {}

    def mean_at(rate_rps: float) -> float:
        tried[rate_rps] = list(attainment_at(rate_rps))
        means[rate_rps] = fmean(tried[rate_rps])
        return means[rate_rps]

    high = 1.0
    while mean_at(high) >= _OVERLOADED and 2 * high <= _HIGHEST_RPS:
        high *= 2
    if means[high] >= TARGET:
        return Knee(inf, min(means.values()) < TARGET, tried)
    low = max((rate for rate, met in means.items() if met >= TARGET), default=0.5)
    while low not in tried and mean_at(low) < TARGET:
        low /= 2
        if low < _LOWEST_RPS:
            return Knee(0.0, False, tried)
    high = 2 * low
    while high / low > 1 + TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean_at(middle) >= TARGET else (low, middle)
    return Knee(low, any(met < TARGET for rate, met in means.items() if rate < low), tried)


@dataclass(frozen=True)
class Search(Task):
    """A knee to be found in runs of `count` requests; attainment at a rate is the mean over the seeds.

    For a family, a rate is in requests per second; for a trace, it is a multiple of the rate scale, on the tuning part.
    """

    policy: PolicySpec
    family: Source
    count: int
    config: ClusterConfig
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        seed = f" seed {self.seeds[0]}" if len(self.seeds) == 1 else ""
        return f"knee of {self.policy.label} on {self.family.name}, {self.config.shape}{seed}"

    def inputs(self) -> Policy | None:
        """A policy from a file, which may be on this machine alone."""
        return self.policy.make() if self.policy.learned else None

    def run(self, inputs: Policy | None) -> Result:
        """Find the knee."""

        def attainment(rate_rps: float, seed: int) -> float:
            workload = self.family.tuning(rate_rps, self.count, seed).make()
            result = simulate(workload, inputs or self.policy.make(seed), self.config, drain_s=DRAIN_S)
            return float(MeasuredRun(result, workload, self.config).requests.met.mean())

        knee = find_knee(lambda rate_rps: [attainment(rate_rps, seed) for seed in self.seeds])
        return Result([knee.rate_rps, knee.dipped, list(knee.tried.items())], {})


def run_searches(searches: Iterable[Search], cache: Cache) -> dict[Search, Knee]:
    """Do the searches that are not finished yet; returns all of them, in order."""
    wanted = list(searches)
    values = [entry.value for entry in cache.run(wanted, "searches for a knee")]
    return {
        search: Knee(rate_rps, dipped, dict(tried))
        for search, (rate_rps, dipped, tried) in zip(wanted, values, strict=True)
    }


def knee_search(family: str, slos: Slos, config: ClusterConfig) -> Search:
    """The search for the knee of `static` on a family.

    It depends on the family, the cluster and the SLOs alone, so a load means the same in every command.
    """
    return Search(PolicySpec.parse("static"), Family(family, 1.0, slos, KNEE_SPAN_S), KNEE_REQUESTS, config, KNEE_SEEDS)


def knees(families: Iterable[str], slos: Slos, config: ClusterConfig, cache: Cache) -> dict[str, Knee]:
    """The knee of `static` on each family by name. Raises InputError (every rate misses, or meets, the target)."""
    found = run_searches([knee_search(family, slos, config) for family in families], cache)
    named = {search.family.name: knee for search, knee in found.items()}
    for name, knee in named.items():
        if not 0 < knee.rate_rps < inf:
            does, rate_rps, remedy = (
                ("keeps", _HIGHEST_RPS, "tighten the SLOs (they are in seconds)")
                if knee.rate_rps
                else ("misses", _LOWEST_RPS, "loosen the SLOs")
            )
            raise InputError(
                f"no knee of static on {name}: it {does} {TARGET:.0%} attainment even at {rate_rps:g} requests/s; "
                + remedy
            )
    return named


def trace_knee(trace: TraceRequests, config: ClusterConfig, cache: Cache) -> float:
    """The knee of `static` on the tuning part of a trace, as a multiple of its rate scale.

    Raises InputError (every rate misses, or meets, the target).
    """
    search = Search(PolicySpec.parse("static"), trace, KNEE_REQUESTS, config, KNEE_SEEDS[:1])
    scale = run_searches([search], cache)[search].rate_rps
    if not 0 < scale < inf:
        does = "keeps" if scale else "misses"
        raise InputError(f"no knee of static on {trace.name}: it {does} {TARGET:.0%} attainment at every rate scale")
    return scale


def intervals(found: Mapping[str, Knee]) -> dict[str, Interval]:
    """The knees with their intervals, which take a bootstrap each."""
    return {name: knee.interval_rps for name, knee in found.items()}


def write_knees(found: Mapping[str, Interval], config: ClusterConfig, path: Path) -> None:
    """Write the knees as JSON: requests per second with intervals, and how they were found."""
    contents = {
        "definition": f"highest rate at which static meets both SLOs of {TARGET:.0%} of the requests",
        "profile": config.profile.name,
        "cluster": config.shape,
        "requests": KNEE_REQUESTS,
        "seeds": KNEE_SEEDS,
        "knees_rps": {name: knee._asdict() for name, knee in found.items()},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def knee_text(found: Mapping[str, Interval]) -> str:
    """The knees in a sentence."""
    return ", ".join("{} {:.2f} [{:.2f}, {:.2f}]".format(name, *knee) for name, knee in found.items())
