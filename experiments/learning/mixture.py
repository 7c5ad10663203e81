"""The mixture that a policy is trained on: workloads, cluster shapes and TBT SLOs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from agents.episodes import FIRST_TRAINING_SEED
from envs.choices import ChoiceSet
from envs.cluster import ClusterConfig
from envs.objective import Objective
from envs.placement_env import CLUSTER_ARGUMENTS, PrefillPlacementEnv
from envs.workload import Workload
from experiments.runs.requests import Range, Source

TRAINING_LOADS = (0.5, 1.15)
_BEYOND = 1.15
"""How far the TBT SLOs of training go beyond the smallest and the largest of a mixture, as a factor."""
_TAIL, _MISS_WEIGHT = 4.0, 4.0
_START = {"start": "running", "warm_up": ("static", "shortest-ttft", "random"), "warm_up_s": (0.0, 15.0)}


@dataclass(frozen=True)
class Setting:
    """A workload on a cluster."""

    name: str
    source: Source
    config: ClusterConfig

    @property
    def cluster_fields(self) -> dict[str, Any]:
        """Fields of the config that differ from their defaults, without those that environments have arguments for."""
        return {
            one.name: value
            for one in fields(ClusterConfig)
            if one.name not in CLUSTER_ARGUMENTS and (value := getattr(self.config, one.name)) != one.default
        }

    @property
    def tbt_slo_s(self) -> float:
        """The TBT SLO of the evaluation, seconds, of the first class of requests."""
        return self.source.own_slos.classes[0].tbt_s

    @property
    def ttft_slo_s(self) -> float:
        """The TTFT SLO of most requests, seconds, without what long prompts add."""
        return max(self.source.own_slos.classes, key=lambda one: one.share).ttft_s

    def environment(self, choices: ChoiceSet, rows: int, objective: Objective) -> PrefillPlacementEnv:
        """The environment of training episodes."""
        config = self.config
        return PrefillPlacementEnv(
            config.profile,
            config.shape,
            choices,
            step_budget=config.step_budget,
            report_age_s=config.report_age_s,
            hosts=config.hosts,
            cluster_options=self.cluster_fields,
            rows=rows,
            tbt_weight=objective.tbt_weight,
            tail_weight=objective.tail_weight,
            miss_weight=objective.miss_weight,
            **self.source.environment(*TRAINING_LOADS),
            **_START,  # type: ignore[arg-type]  # several types of values
        )


def draw_for_training(source: Source, requests: int, rng: np.random.Generator) -> Workload:
    """Requests at a load drawn uniformly from TRAINING_LOADS."""
    load = float(rng.uniform(*TRAINING_LOADS))
    return source.draw(requests, load, FIRST_TRAINING_SEED + int(rng.integers(2**31)))


def tbt_ranges(tbt_slos_s: Sequence[float]) -> list[Range | None]:
    """The range that training draws from around each TBT SLO of a mixture; None if there is only one.

    The ranges meet at the geometric means of neighbours, and those at the ends go on by the factor _BEYOND.
    """
    if len(tbt_slos_s) == 1:
        return [None]
    inner = [(low * high) ** 0.5 for low, high in pairwise(sorted(tbt_slos_s))]
    edges = [min(tbt_slos_s) / _BEYOND, *inner, max(tbt_slos_s) * _BEYOND]
    return [next((low, high) for low, high in pairwise(edges) if low <= one <= high) for one in tbt_slos_s]


def objective_for(best_p95_over_slo: float) -> Objective:
    """The cost that is minimised where the best rule has this P95 TTFT, in TTFT SLOs.

    The weight of squared waits is inverse to it, so that tails weigh the same in workloads whose TTFTs differ tenfold;
    a request that waits as long as that P95 costs 1 + _TAIL of the linear part. Every missed SLO costs _MISS_WEIGHT.
    Neither number is from a paper.
    """
    return Objective(tail_weight=_TAIL / best_p95_over_slo, miss_weight=_MISS_WEIGHT)
