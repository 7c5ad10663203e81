"""The cost that knobs are tuned by, which learned policies minimise too; and which of several settings is best."""

from collections.abc import Mapping
from typing import NamedTuple

import policies
from envs.cluster import ClusterConfig, simulate
from envs.objective import DEFAULT_OBJECTIVE, Objective
from envs.workload import Workload
from experiments.metrics import Attainment, as_array

ATTAINMENT_MARGIN = 0.01


class Tried(NamedTuple):
    """What a setting gave: cost a request, and share of requests that met both SLOs."""

    cost: float
    attainment: float


def measure(
    policy: str, workload: Workload, config: ClusterConfig, objective: Objective = DEFAULT_OBJECTIVE, seed: int = 0
) -> Tried:
    """SLO attainment and the objective's cost per request.

    All requests count and are played to their end. One that was rejected has waited until then.

    Args:
        policy: what `policies.make` takes.
        workload: the requests; its SLOs decide.
        config: the cluster.
        objective: weights of the cost.
        seed: for rules that draw random numbers.
    """
    result = simulate(workload, policies.make(policy, seed=seed), config)
    met = Attainment.of(as_array(result.records), workload.ttft_slo_s, workload.tbt_slo_s)
    return Tried(objective.of_result(result, workload) / len(workload), float(met.both.mean()))


def best(tried: Mapping[str, Tried]) -> str:
    """The setting with the least cost among those whose attainment is within a point of the best.

    A gap that exceeds its SLO by a hair costs next to nothing and is a miss all the same.
    """
    enough = max(one.attainment for one in tried.values()) - ATTAINMENT_MARGIN
    return min([name for name, one in tried.items() if one.attainment >= enough], key=lambda name: tried[name].cost)
