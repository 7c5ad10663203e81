"""The cost that placements are judged by; one formula for rewards, look-ahead and tuning.

A request costs TTFT / TTFT SLO, `tail_weight` times its square, and `tbt_weight` times the sum over its gaps between
tokens of max(0, gap / TBT SLO - 1). A request that still waits for its first token has waited until now. A request that
misses an SLO costs `miss_weight` more, once, at the moment it misses: when its TTFT SLO has passed without a first
token, or when a gap ends that was longer than its TBT SLO.
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
        """What has accrued since."""
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
        tail_weight: weight of the squared waits, which makes long waits count for more than in the mean; >= 0.
        miss_weight: cost of a request that misses an SLO; >= 0.

    Raises:
        InputError: a weight out of range.
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
        # Compiled, it could not be unpickled by assigning to its fields.
        return Objective, (self.tbt_weight, self.tail_weight, self.miss_weight)

    def total(self, costs: Costs) -> float:
        """The cost that parts add up to."""
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
        """The cost of a finished run, as `of` would have given it at the run's end.

        A request that was rejected has waited until the run's end; `of` leaves its wait out.

        Args:
            result: of all requests of `workload`, with records.
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
"""What rules are tuned by and learned policies trained for. Not from a paper: of the tail weights 2 and 8, tried on
seeds from 600,000, 2 gave the lower means and 8 the lower tails, none of them beyond those of `shortest-ttft`."""
