"""The knee: the highest load at which a policy still meets the SLOs of most requests.

That of `static` is what every other load is a multiple of; `experiments.capacity` compares those of all policies.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import ceil, inf
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, Protocol

import policies
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from envs.slos import DEFAULT_SLOS, Slos
from envs.workload import Workload
from experiments.cells import DRAIN_S
from experiments.digests import config_digest, digest
from experiments.executors import finished
from experiments.metrics import Attainment, as_array, measured
from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing

TARGET = 0.9
# Not among the seeds that comparisons count from 0.
SEEDS = (900_001, 900_002, 900_003)
TOLERANCE = 0.02
_OVERLOADED = 0.5
_LOWEST_RPS, _HIGHEST_RPS = 1 / 64, 4096.0


class AtRate(Protocol):
    """Makes the requests at a rate (requests per second) with a seed."""

    def __call__(self, *, rate_rps: float, seed: int) -> Workload:
        """Make them."""


def family_at_rate(name: str, requests: int, *, span_s: float = 0.0, slos: Slos = DEFAULT_SLOS) -> AtRate:
    """Requests of a family: `requests` of them, or as many more as come in `span_s` seconds.

    A queue must grow before an SLO is missed, so a run that is not much longer than the TTFT SLO bears more than the
    cluster does; at hundreds of requests a second a fixed number of them is such a run.
    """
    return partial(_drawn, name, requests, span_s, slos)


def _drawn(name: str, requests: int, span_s: float, slos: Slos, *, rate_rps: float, seed: int) -> Workload:
    count = max(requests, ceil(rate_rps * span_s))
    return generate(name, rate_rps=rate_rps, requests=count, seed=seed, slos=slos)


def attainment(workload: Workload, policy: str, config: ClusterConfig, seed: int = 0) -> float:
    """SLO attainment of `policy` over the measured window of one run."""
    result = simulate(workload, policies.make(policy, seed=seed), config, drain_s=DRAIN_S)
    records = as_array(result.records)
    records = records[measured(records)]
    index = records["request"]
    met = Attainment.of(records, workload.ttft_slo_s[index], workload.tbt_slo_s[index])
    return float(met.both.mean())


class Knee(NamedTuple):
    """What a search found.

    Attributes:
        rate_rps: the knee, requests per second; 0 where the target is missed at every rate, inf where it is met at
            every rate.
        dipped: whether the target was missed at a lower rate that was tried: a rule may break the TBT SLO at a load and
            not at a higher one.
        tried: attainment by rate, everything that was tried.
    """

    rate_rps: float
    dipped: bool
    tried: dict[float, float]


def find_knee(attainment_at: Callable[[float], float]) -> Knee:
    """The highest rate at which attainment is at least TARGET.

    From 1 request/s the rate is doubled until attainment is below one half, which no dip is, and halved where it was
    TARGET at none of these; then the interval above the highest rate that met it is bisected in the logarithm until its
    ends are within 2 %.

    Args:
        attainment_at: attainment, in [0, 1], at a rate in requests per second.
    """
    tried: dict[float, float] = {}

    def tried_at(rate_rps: float) -> float:
        tried[rate_rps] = attainment_at(rate_rps)
        return tried[rate_rps]

    rate_rps = 1.0
    while tried_at(rate_rps) >= _OVERLOADED and 2 * rate_rps <= _HIGHEST_RPS:
        rate_rps *= 2
    if tried[rate_rps] >= TARGET:
        return Knee(inf, min(tried.values()) < TARGET, tried)
    low = max((rate for rate, met in tried.items() if met >= TARGET), default=0.5)
    while low not in tried and tried_at(low) < TARGET:
        low /= 2
        if low < _LOWEST_RPS:
            return Knee(0.0, False, tried)
    high = 2 * low
    while high / low > 1 + TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if tried_at(middle) >= TARGET else (low, middle)
    return Knee(low, any(met < TARGET for rate, met in tried.items() if rate < low), tried)


class Search(NamedTuple):
    """A knee to be found.

    Attributes:
        policy: what `policies.make` takes.
        workload: its name in files.
        at_rate: makes the requests.
        config: the cluster.
        seeds: of the requests; attainment at a rate is its mean over them.
    """

    policy: str
    workload: str
    at_rate: AtRate
    config: ClusterConfig
    seeds: tuple[int, ...] = SEEDS


def _find(search: Search) -> Knee:
    policy, _, at_rate, config, seeds = search

    def attainment_at(rate_rps: float) -> float:
        return fmean(attainment(at_rate(rate_rps=rate_rps, seed=seed), policy, config, seed) for seed in seeds)

    return find_knee(attainment_at)


def search_all(
    searches: Iterable[Search],
    folder: Path,
    *,
    fingerprint: str = "",
    jobs: int | None = 1,
    executor: str = "local",
) -> dict[Search, Knee]:
    """Do the searches that `folder` does not hold yet, and return all of them in order; progress goes to stderr.

    Args:
        searches: what to find.
        folder: where finished searches are kept.
        fingerprint: of everything that the knees depend on and the searches do not hold (code, SLOs, requests).
        jobs: searches at a time; see `executors.finished`, also for `executor`.
        executor: where they run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(searches)
    of_config = {config: config_digest(config) for config in {search.config for search in wanted}}
    paths = {search: _path(search, folder, digest(of_config[search.config], fingerprint)) for search in wanted}
    missing = [search for search, path in paths.items() if not path.exists()]
    if len(missing) < len(paths):
        print(f"{len(paths) - len(missing)} of {len(paths)} knees are there already", file=sys.stderr)
    for done, (search, knee) in enumerate(finished(_find, missing, jobs, executor), start=1):
        seeds = f" seed {search.seeds[0]}" if len(search.seeds) == 1 else ""
        print(
            f"[{done}/{len(missing)}] knee of {search.policy} on {search.workload}, {search.config.shape}{seeds}: "
            f"{knee.rate_rps:.2f} requests/s",
            file=sys.stderr,
        )
        with replacing(paths[search]) as path:
            path.write_text(json.dumps([knee.rate_rps, knee.dipped, list(knee.tried.items())]))
    return {search: _read(path) for search, path in paths.items()}


def _path(search: Search, folder: Path, fingerprint: str) -> Path:
    policy, workload, _, config, seeds = search
    key = digest(policy, workload, repr(seeds), fingerprint)
    return folder / f"knee-{workload}-{config.shape}-{key}.json"


def _read(path: Path) -> Knee:
    rate_rps, dipped, tried = json.loads(path.read_text())
    return Knee(rate_rps, dipped, dict(tried))


def knees(
    at_rate: Mapping[str, AtRate],
    config: ClusterConfig,
    folder: Path,
    *,
    fingerprint: str = "",
    jobs: int | None = 1,
    executor: str = "local",
) -> dict[str, float]:
    """The knee of `static` on each workload by name, requests per second; kept in `folder`, as `run_cells` keeps cells.

    An overloaded queue grows for as long as requests come, so the knee is that of runs of this many requests.

    Raises:
        InputError: the target is missed at every rate, or met at every rate.
    """
    searches = [Search("static", name, made, config) for name, made in at_rate.items()]
    found = search_all(searches, folder, fingerprint=fingerprint, jobs=jobs, executor=executor)
    for search, knee in found.items():
        name = search.workload
        if knee.rate_rps == 0:
            raise InputError(
                f"no knee of static on {name}: it misses {TARGET:.0%} attainment even at {_LOWEST_RPS:g} requests/s; "
                "loosen the SLOs"
            )
        if knee.rate_rps == inf:
            raise InputError(
                f"no knee of static on {name}: it keeps {TARGET:.0%} attainment even at {_HIGHEST_RPS:g} requests/s; "
                "use more requests"
            )
    return {search.workload: knee.rate_rps for search, knee in found.items()}
