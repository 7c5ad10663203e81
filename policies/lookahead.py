"""`lookahead`: a clairvoyant bound on the effect of placement; not a rule to deploy."""

from math import inf
from typing import cast

import policies
from envs.choices import Choices, ChoiceSet, check_choice_set
from envs.cluster import Cluster, Placement, RequestView, RouterView
from envs.objective import Objective
from envs.workload import Row
from hardware_profiles import InputError
from policies.rollout import placed_by, rollout_cost

_TIE = 1e-9  # costs in units of SLOs that differ by less are equal up to rounding


class Lookahead:
    """Simulate each placement on copies of the cluster with the actual next arrivals, and use the cheapest.

    The cost of a placement is the environment's (waits for first tokens relative to their SLOs, TBT excess) if a base
    policy places the later requests: one step of policy improvement on the base (rollout; Bertsekas, Tsitsiklis and Wu
    1997). With several bases it is the least of their costs (parallel rollout; Chang, Givan and Chong 2004), which is
    about as good as the best base. Candidates are the placement of each base and the feasible choices of a set
    (`envs.choices`); on a tie, the first base's placement is used.

    The bound is empirical, not proven: the search covers one decision at a time and only its candidates, so a rule with
    other placements, such as `colocated`, may do better. The first base places requests whose node was lost.

    Args:
        horizon: number of later arrivals to simulate; >= 1.
        tail_weight: weight of the squared waits in the cost, as in the environment; >= 0.
        choices: "deflection" or "pairs".
        base: registered policies joined by "+", each with its knobs. In a policy name it must be the last knob, because
            it takes the rest: `lookahead:horizon=20,base=kairos:beta=0.9,cap=2+static`. The default of two bases is not
            from a paper: with kairos alone, the cost on bursts is tied with that of `shortest-ttft`.
        seed: seed of the bases.
    """

    name = "lookahead"
    clairvoyant = True

    def __init__(
        self,
        horizon: int = 40,
        tail_weight: float = 0.0,
        choices: str = "deflection",
        base: str = "kairos+shortest-ttft",
        seed: int = 0,
    ) -> None:
        check_choice_set(choices)
        self._choices = cast(ChoiceSet, choices)
        if horizon < 1:
            raise InputError(f"lookahead: horizon must be at least 1 request, not {horizon}")
        names = base.split("+")
        for name in names:
            if name.partition(":")[0] not in policies.names():
                raise InputError(
                    f"lookahead: base {name!r} is not a registered policy; give one of {', '.join(policies.names())}, "
                    "or several joined by +"
                )
        self._bases = [policies.make(name, seed=seed) for name in names]
        self._horizon = horizon
        self._objective = Objective(tail_weight=tail_weight)
        self._cluster: Cluster | None = None
        self._requests: list[Row] = []

    def attend(self, cluster: Cluster, requests: list[Row]) -> None:
        """Receive the cluster and all requests of the run; called before the first request arrives."""
        self._cluster = cluster
        self._requests = requests

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request.

        Raises:
            InputError: a base rejects a request, or `attend` was not called (`envs.cluster.simulate` calls it).
        """
        cluster = self._cluster
        if cluster is None:
            raise InputError("lookahead is clairvoyant: it plays whole runs and cannot place from a view alone")
        owns = [placed_by(base, request, view) for base in self._bases]
        if request.number in cluster.lifecycle.in_flight:
            return owns[0]
        choices = Choices.of(request, view, self._choices)
        found = [choices.placement(row) for row in choices.feasible_rows()]
        best = owns[0]
        best_cost = inf
        for placement in dict.fromkeys([*owns, *found]):
            costs = [
                rollout_cost(
                    cluster,
                    placement,
                    request.number,
                    self._requests,
                    base,
                    horizon_requests=self._horizon,
                    objective=self._objective,
                )
                for base in self._bases
            ]
            cost = min(costs)
            if cost < best_cost - _TIE:
                best = placement
                best_cost = cost
        return best
