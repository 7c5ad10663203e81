"""`lookahead`: a clairvoyant bound on what placing can achieve; not a rule to deploy."""

from math import inf
from typing import cast

import policies
from envs.choices import Choices, ChoiceSet, check_choice_set
from envs.cluster import Cluster, Placement, RequestView, RouterView
from envs.objective import Objective
from envs.workload import Row
from hardware_profiles import InputError
from policies.rollout import placed_by, rollout_cost

_TIE = 1e-9  # of a cost in SLOs: what rounding makes of equal ones


class Lookahead:
    """Play each placement forward on copies of the cluster with the true next arrivals and take the cheapest.

    A placement's cost is the environment's (waits for first tokens over their SLOs, TBT excess) when a base policy
    places what follows: one step of policy improvement on the base (rollout; Bertsekas, Tsitsiklis and Wu 1997). With
    several bases it is the least of their costs (parallel rollout; Chang, Givan and Chong 2004), about as good as the
    best of them. Candidates are each base's own placement and the feasible choices of a set (`envs.choices`); what
    costs the same goes to the first base's own.

    A bound by what it has found, not by proof: it looks at one decision at a time and at its own candidates, so a rule
    with other placements, such as `colocated`, may do better where those are. A request whose node was lost is placed
    by the first base.

    Args:
        horizon: arrivals that follow and are played; >= 1.
        tail_weight: weight of the squared waits in the cost, as in the environment; >= 0.
        choices: "deflection" or "pairs".
        base: registered policies joined by "+", with knobs of their own; in a name it comes last and takes the rest:
            `lookahead:horizon=20,base=kairos:beta=0.9,cap=2+static`. Two by default, ours: with kairos alone its cost
            is not told apart from that of `shortest-ttft` on bursts.
        seed: of the bases.
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
                    f"lookahead: base {name!r} is no registered policy; give one of {', '.join(policies.names())}, "
                    "or several joined by +"
                )
        self._bases = [policies.make(name, seed=seed) for name in names]
        self._horizon = horizon
        self._objective = Objective(tail_weight=tail_weight)
        self._cluster: Cluster | None = None
        self._requests: list[Row] = []

    def attend(self, cluster: Cluster, requests: list[Row]) -> None:
        """Know a cluster and all the requests that it is going to get; before the first of them arrives."""
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
