"""The cost of placements: one formula for rewards, look-ahead and tuning.

A request costs TTFT / TTFT SLO, plus `tail_weight` times the square of that, plus `tbt_weight` times the sum over its
gaps between tokens of max(0, gap / TBT SLO - 1). For a request without a first token, the time waited so far counts as
its TTFT. A request that misses an SLO costs `miss_weight` more, once, at the moment of the miss: when its TTFT SLO has
passed without a first token, or when a gap longer than its TBT SLO ends.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from mypy_extensions import mypyc_attr

from envs.cluster import Cluster, RunResult
from envs.workload import Workload
from hardware_profiles import InputError


@mypyc_attr(acyclic=True, free_list_len=1)
class Costs:
    """The parts of the cost, unweighted, summed over requests, in units of SLOs.

    Attributes:
        waiting: waits for first tokens.
        tbt: time by which gaps between tokens exceeded their SLO.
        tail: squares of the waits; 0 if their weight is 0.
        misses: requests that missed an SLO; 0 if their weight is 0.
    """

    __slots__ = ("misses", "tail", "tbt", "waiting")

    def __init__(self, waiting: float, tbt: float, tail: float, misses: float = 0.0) -> None:
        self.waiting = waiting
        self.tbt = tbt
        self.tail = tail
        self.misses = misses

    def since(self, earlier: "Costs") -> "Costs":
        """The parts that have accrued since `earlier`."""
        return Costs(
            self.waiting - earlier.waiting,
            self.tbt - earlier.tbt,
            self.tail - earlier.tail,
            self.misses - earlier.misses,
        )


@dataclass(frozen=True)
class Objective:
    """Weights of the cost.

    Attributes:
        tbt_weight: weight of the TBT excess; >= 0.
        tail_weight: weight of the squared waits, which penalises long waits more; >= 0.
        miss_weight: cost of a request that misses an SLO; >= 0.

    Raises:
        InputError: a weight is out of range.
    """

    tbt_weight: float = 1.0
    tail_weight: float = 0.0
    miss_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tbt_weight", "tail_weight", "miss_weight"):
            weight = getattr(self, name)
            if not 0.0 <= weight < inf:
                raise InputError(f"{name} must be a number from 0 on, not {weight}")

    def __reduce__(self) -> tuple[type["Objective"], tuple[float, ...]]:
        # A compiled frozen object cannot be unpickled by assignment to its fields.
        return Objective, (self.tbt_weight, self.tail_weight, self.miss_weight)

    def total(self, costs: Costs) -> float:
        """The weighted sum of the parts."""
        return (
            costs.waiting
            + self.tbt_weight * costs.tbt
            + self.tail_weight * costs.tail
            + self.miss_weight * costs.misses
        )

    def costs(self, cluster: Cluster) -> Costs:
        """The parts that have accrued in a running cluster."""
        tail = cluster.tail_cost() if self.tail_weight else 0.0
        misses = float(cluster.misses()) if self.miss_weight else 0.0
        return Costs(cluster.waiting_cost(), cluster.tbt_cost(), tail, misses)

    def of(self, cluster: Cluster) -> float:
        """The cost that has accrued in a running cluster."""
        return self.total(self.costs(cluster))

    def of_result(self, result: RunResult, workload: Workload) -> float:
        """The cost of a finished run: the value of `of` at the run's end, plus the waits of rejected requests.

        A rejected request counts as waiting until the run's end.

        Args:
            result: result of playing all requests of `workload`, with records.
            workload: the requests.
        """
        first_token_s = np.array([record.first_token_s for record in result.records])
        until_s = np.where(np.isnan(first_token_s), result.end_s, first_token_s)
        waited = (until_s - workload.arrival_s) / workload.ttft_slo_s
        counters = result.counters
        tail = float((waited * waited).sum())
        return self.total(Costs(float(waited.sum()), counters.tbt_excess, tail, counters.misses))


DEFAULT_OBJECTIVE = Objective()

TUNING_OBJECTIVE = Objective(tail_weight=8.0)
"""The objective for tuning rules and training policies. Not from a paper: of the tail weights 2 and 8, tried on seeds
from 600,000, 2 gave lower means and 8 gave lower tails; neither beat those of `shortest-ttft`."""
