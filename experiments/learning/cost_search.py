"""Costs for a portfolio: for each setting of a mixture, the weights of `envs.choice_cost` that searches find there.

A first round of searches starts from rules. What it finds on one setting may be better on another one than what it
found there, so a second round starts from the best of all of these. If costs are given, there is only the second round.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, count
from types import MappingProxyType

import numpy as np

from agents.episodes import FIRST_TRAINING_SEED
from agents.evolution import STARTS, search
from envs.cluster import ClusterConfig
from envs.workload import Workload
from experiments.learning.mixture import Setting
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.requests import Family, Source

LOADS = {
    "": (0.5, 0.7, 0.85, 0.95, 1.05),
    "-light": (0.5, 0.6, 0.7, 0.8, 0.9),
    "-heavy": (0.85, 0.95, 1.0, 1.05, 1.1),
}
"""Loads of a search, by what is added to the name of the cost. What is best near overload is worse elsewhere."""
_REFINED = "-refined"
"""Added to the names of the costs of the second round."""

_NEAR = 1.06
"""TBT SLOs of a search are those of the setting times or divided by at most this; likewise the loads."""
_SPAN_S, _REQUESTS = 30.0, (2000, 6000)


@dataclass(frozen=True)
class CostSearch(Task):
    """A search on one setting; the value has its weights, its start and its gain.

    `starts` are names and weights of costs that the search may begin with, besides rules.
    """

    source: Source
    config: ClusterConfig
    loads: tuple[float, ...]
    generations: int
    seed: int
    starts: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def __str__(self) -> str:
        what = "refinement of costs" if self.starts else "search for a cost"
        tbt_slo_ms = 1e3 * self.source.own_slos.classes[0].tbt_s
        return f"{what} on {self.source.name}, {tbt_slo_ms:g} ms, loads {self.loads[0]} to {self.loads[-1]}"

    def run(self, inputs: None) -> Result:  # noqa: ARG002 - there are none
        """Search."""

        @lru_cache(1)
        def workloads(number: int) -> list[Workload]:
            key = (0xC057, 1, number) if self.starts else (0xC057, number)
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            requests = self.source.long_episode_requests
            if isinstance(self.source, Family):
                requests = int(np.clip(_SPAN_S * self.source.unit_rps, *_REQUESTS))
            near = np.exp(rng.uniform(-np.log(_NEAR), np.log(_NEAR), size=len(self.loads)))
            seeds = FIRST_TRAINING_SEED + rng.integers(2**31, size=len(self.loads))
            loads = np.array(self.loads) * near
            return [self.source.draw(requests, float(load), int(seed)) for load, seed in zip(loads, seeds, strict=True)]

        starts = STARTS | {name: np.array(weights) for name, weights in self.starts}
        found = search(workloads, self.config, self.generations, self.seed, starts)
        return Result({"weights": found.weights.tolist(), "start": found.start, "gain": found.gain}, {})


def search_costs(
    settings: Sequence[Setting],
    generations: int,
    seed: int,
    cache: Cache,
    known: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """The weights that are found on each setting, by the name of the member that has them, after `known` ones."""
    wanted = {
        f"cost-{setting.name.replace(' ', '-')}{added}": CostSearch(
            _near(setting.source), setting.config, LOADS[added], generations, seed
        )
        for setting in settings
        for added in LOADS
    }
    costs = {name: weights.tolist() for name, weights in known.items()} or _found(wanted, cache)
    starts = tuple((name, tuple(weights)) for name, weights in costs.items())
    refined = {name: replace(task, starts=starts) for name, task in wanted.items()}
    costs |= _found({new_name(f"{name}{_REFINED}", costs): task for name, task in refined.items()}, cache)
    return {name: np.array(weights) for name, weights in costs.items()}


def new_name(name: str, taken: Collection[str]) -> str:
    """This name, with the first number that makes it a new one if it is taken."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def _found(wanted: Mapping[str, CostSearch], cache: Cache) -> dict[str, list[float]]:
    """The weights that these searches find, by name."""
    costs = {}
    for name, entry in zip(wanted, cache.run(list(wanted.values()), "searches for a cost"), strict=True):
        found = entry.value
        gain = f"tail cost {found['gain']:.3f} lower than that of {found['start']}"
        print(f"{name}: {gain}, on workloads that were not searched", file=sys.stderr)
        costs[name] = found["weights"]
    return costs


def _near(source: Source) -> Source:
    """The same requests with TBT SLOs near that of the setting, if training draws them from a range."""
    if not isinstance(source, Family) or source.tbt_range_s is None:
        return source
    tbt_slo_s = source.own_slos.classes[0].tbt_s
    return replace(source, tbt_range_s=(tbt_slo_s / _NEAR, tbt_slo_s * _NEAR))
