"""A search for the weights of a parametric cost of a choice (`envs.choice_cost`).

The weights are found by CMA-ES (Hansen and Ostermeier 2001) on the metric itself, the tail of the TTFT with a penalty
for missed SLOs. A gradient of that metric does not exist, and PPO's sum of costs per request is only a stand-in for it.
Every generation plays new workloads; all candidates of a generation play the same ones.
"""

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import NamedTuple

import numpy as np

from agents.cost_policy import CostPolicy
from agents.distillation import MISS_WEIGHT, play_workload
from envs.choice_cost import TERMS
from envs.cluster import ClusterConfig, Policy
from envs.workload import Workload

POPULATION = 14
_STEP = 0.15  # first standard deviation of every weight
_QUANTILES = (0.92, 0.935, 0.95, 0.965, 0.98)  # a mean of several has less noise than P95
_CLIPPED = 0.5  # so that one overloaded workload does not decide alone
_KEPT_EVERY = 10  # generations
_NEVER_S = 60.0
_WARM_UP = 0.1  # share of the requests that do not count

CLOSED = 20.0
"""A weight of a flag that no other term outweighs."""


def weights_of(**terms: float) -> np.ndarray:
    """Weights by term; 0 for all others."""
    found = np.zeros(len(TERMS))
    for term, weight in terms.items():
        found[TERMS.index(term)] = weight
    return found


def _deflecting(alpha: float) -> np.ndarray:
    """`shortest-ttft:choices=deflection` with this alpha."""
    return weights_of(ttft=1.0, prefill_on_decode_node=-log(alpha), decode_on_decode_node=-CLOSED)


STARTS = {
    "shortest-ttft:choices=pairs": weights_of(ttft=1.0),
    "lmetric": weights_of(queue=1.0, decodes=1.0, same_node=-CLOSED),
    "disaggregated": weights_of(ttft=1.0, prefill_on_decode_node=CLOSED, decode_on_decode_node=-CLOSED),
    **{f"shortest-ttft:alpha={alpha},choices=deflection": _deflecting(alpha) for alpha in (0.6, 0.7, 0.8, 0.9, 1.0)},
}
"""Rules that are special cases of the cost, or nearly; a search starts from the best."""


def tail_cost(workload: Workload, policy: Policy, config: ClusterConfig) -> float:
    """The mean logarithm of the TTFT's quantiles around P95, seconds, plus 0.2 for each point of missed SLOs."""
    ttft_s, missed = play_workload(workload, policy, config)
    counted = np.where(np.isinf(ttft_s), _NEVER_S, ttft_s)[int(_WARM_UP * len(workload)) :]
    tail = float(np.log(np.quantile(counted, _QUANTILES)).mean())
    return tail + MISS_WEIGHT * missed


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        weights: one per term.
        start: the name of the start.
        gain: by how much the tail cost is lower than the start's, on workloads that the search did not use.
    """

    weights: np.ndarray
    start: str
    gain: float


def search(
    workloads: Callable[[int], Sequence[Workload]],
    config: ClusterConfig,
    generations: int,
    seed: int,
    starts: Mapping[str, np.ndarray] = STARTS,
) -> Found:
    """Search for weights with a low tail cost.

    Args:
        workloads: makes different workloads for every number: one of each load.
        config: the cluster.
        generations: how many.
        seed: of the candidates.
        starts: weights by name; the search begins with the best of them.
    """
    from cmaes import CMA  # only training needs it

    def costs(weights: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
        """(W, L) tail cost of each."""
        played = [one for number in numbers for one in workloads(number)]
        policies = [CostPolicy("candidate", one) for one in weights]
        return np.array([[tail_cost(one, policy, config) for one in played] for policy in policies])

    start = list(starts)[int(costs(list(starts.values()), range(2)).mean(axis=1).argmin())]
    kept = [starts[start]]
    strategy = CMA(mean=starts[start].copy(), sigma=_STEP, population_size=POPULATION, seed=seed)
    for generation in range(generations):
        candidates = [strategy.ask() for _ in range(POPULATION)]
        found = costs(candidates, [2 + generation])
        behind = np.clip(found - np.median(found, axis=0), -_CLIPPED, _CLIPPED).mean(axis=1)
        strategy.tell([(one, float(cost)) for one, cost in zip(candidates, behind, strict=True)])
        if generation % _KEPT_EVERY == _KEPT_EVERY - 1 or generation == generations - 1:
            kept.append(strategy.mean.copy())
    held_out = costs(kept, range(2 + generations, 6 + generations)).mean(axis=1)
    best = int(held_out.argmin())
    return Found(kept[best], start, float(held_out[0] - held_out[best]))
