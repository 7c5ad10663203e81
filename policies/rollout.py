"""The cost of a placement, found by simulating it on a copy of the cluster with the actual later requests.

All placements of a request are simulated with the same later arrivals, which a base policy places, and to the same end.
Differences between placements therefore contain no noise from arrivals or from the end of the rollout. Because it uses
the actual arrivals and output lengths, this gives a bound and a teacher, but never a rule to deploy.
"""

from copy import deepcopy

from envs.cluster import Cluster, Placement, Policy, RequestView, RouterView, request_of, view_of
from envs.objective import DEFAULT_OBJECTIVE, Objective
from envs.workload import Row
from hardware_profiles import InputError

SETTLE_S = 30.0
"""Seconds that a rollout continues after its last arrival. Not from a paper.

This is long enough for every first token unless queues are longer. A request that still waits at the end has the same
wait for all placements. Nothing is simulated once the cluster is empty, so a long time costs little.
"""


def placed_by(base: Policy, request: RequestView, view: RouterView) -> Placement:
    """The placement of a base policy.

    Raises:
        InputError: the policy rejects the request. The cost is waiting, so a rejection would look free.
    """
    placement = base.place(request, view)
    if placement is None:
        raise InputError(f"look-ahead: {base.name} rejects request {request.number}; a base must place every request")
    return placement


def rollout_cost(
    cluster: Cluster,
    placement: Placement,
    number: int,
    requests: list[Row],
    base: Policy,
    *,
    horizon_requests: int,
    objective: Objective = DEFAULT_OBJECTIVE,
) -> float:
    """Cost of a placement of request `number`, which arrives now, by the environment's objective, in units of SLOs.

    It includes all requests from the start of the cluster to SETTLE_S after the last simulated arrival, also those in
    flight; only differences between placements of one request are meaningful. Neither the cluster nor the base policy
    changes: a deep copy of the policy decides, in its current state.

    Args:
        cluster: the cluster at the request's arrival; the request is not submitted yet.
        placement: the placement.
        number: index of the request in `requests`.
        requests: all requests of the run.
        base: places later requests.
        horizon_requests: number of later requests to simulate.
        objective: weights of the cost.

    Raises:
        InputError: the base policy rejects a request.
    """
    twin = cluster.copy(lambda _: None)
    decider = deepcopy(base)
    clock = twin.clock
    view = twin.view()
    twin.submit(request_of(number, requests[number]), placement)
    for later in range(number + 1, min(len(requests), number + 1 + horizon_requests)):
        request = requests[later]
        clock.advance_to(request[0])
        twin.submit(request_of(later, request), placed_by(decider, view_of(later, request), view))
    clock.advance_to(clock.now + SETTLE_S)
    return objective.of(twin)
