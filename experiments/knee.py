"""The knee: the load that every other load is a multiple of."""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, Protocol

import policies
from agents.processes import finished
from envs.cluster import ClusterConfig, simulate
from envs.workload import Workload
from experiments.cells import DRAIN_S
from experiments.digests import digest
from experiments.metrics import Attainment, as_array, measured
from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing

TARGET = 0.9
# Not among the seeds that comparisons count from 0.
SEEDS = (900_001, 900_002, 900_003)
_TOLERANCE = 0.02
_LOWEST_RPS, _HIGHEST_RPS = 1 / 64, 4096.0


def attainment(workload: Workload, policy: str, config: ClusterConfig) -> float:
    """SLO attainment of `policy` over the measured window of one run."""
    result = simulate(workload, policies.make(policy), config, drain_s=DRAIN_S)
    records = as_array(result.records)
    records = records[measured(records)]
    index = records["request"]
    met = Attainment.of(records, workload.ttft_slo_s[index], workload.tbt_slo_s[index])
    return float(met.both.mean())


class AtRate(Protocol):
    """Makes the requests at a rate (requests per second) with a seed."""

    def __call__(self, *, rate_rps: float, seed: int) -> Workload:
        """Make them."""


def knee_rps(at_rate: AtRate, config: ClusterConfig) -> float:
    """The highest rate at which `static` still meets the SLOs of TARGET of the requests, requests per second.

    Attainment at a rate is the mean over SEEDS of the attainment (TTFT and TBT) in the measured window.
    From 1 request/s the rate is halved until the target is met, doubled until it is missed, and bisected in
    the logarithm until the two are within 2 %; the one that meets it is the knee. An overloaded queue grows
    for as long as requests come, so the knee is that of runs of this many requests.

    Args:
        at_rate: makes the requests.
        config: the cluster.

    Raises:
        InputError: the target is missed at every rate, or met at every rate.
    """

    def meets(rate_rps: float) -> bool:
        return fmean(attainment(at_rate(rate_rps=rate_rps, seed=seed), "static", config) for seed in SEEDS) >= TARGET

    low = 1.0
    while not meets(low):
        low /= 2
        if low < _LOWEST_RPS:
            raise InputError(
                f"no knee: static misses {TARGET:.0%} attainment even at {low:g} requests/s; loosen the SLOs"
            )
    high = 2 * low
    while meets(high):
        low, high = high, 2 * high
        if high > _HIGHEST_RPS:
            raise InputError(
                f"no knee: static keeps {TARGET:.0%} attainment even at {low:g} requests/s; use more requests"
            )
    while high / low > 1 + _TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


class _Search(NamedTuple):
    workload: str
    at_rate: AtRate
    config: ClusterConfig


def _search(search: _Search) -> float:
    return knee_rps(search.at_rate, search.config)


def knees(
    at_rate: Mapping[str, AtRate], config: ClusterConfig, folder: Path, *, fingerprint: str = "", jobs: int = 1
) -> dict[str, float]:
    """The knee of each workload by name, requests per second; kept in `folder`, as `run_cells` keeps cells."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"knee-{name}-{digest(name, fingerprint)}.txt" for name in at_rate}
    missing = [_Search(name, made, config) for name, made in at_rate.items() if not paths[name].exists()]
    for search, rate_rps in finished(_search, missing, jobs):
        print(f"knee of static on {search.workload}: {rate_rps:.2f} requests/s", file=sys.stderr)
        with replacing(paths[search.workload]) as path:
            path.write_text(repr(rate_rps))
    return {name: float(path.read_text()) for name, path in paths.items()}
