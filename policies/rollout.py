"""What a placement costs, found by playing it forward on a copy of the cluster with the requests that truly follow.

Every placement of a request is played over the same next arrivals, a base policy placing them, to the same end, so
differences between placements carry no noise, neither of arrivals nor of when a rollout happened to be over. Knowing
the true arrivals and output lengths makes this a bound and a teacher, never a rule to deploy.
"""

from copy import deepcopy

from envs.cluster import Cluster, Placement, Policy, RequestView, RouterView, request_of, view_of
from envs.objective import DEFAULT_OBJECTIVE, Objective
from envs.workload import Row
from hardware_profiles import InputError

SETTLE_S = 30.0
"""How long a rollout goes on after its last arrival, seconds; ours.

Long enough for every first token unless queues are longer than that; a request that still waits then has waited until
then, whatever the placement. Once the cluster is empty nothing is left to simulate, so a long settling costs little.
"""


def placed_by(base: Policy, request: RequestView, view: RouterView) -> Placement:
    """Where a base policy places a request.

    Raises:
        InputError: it rejects the request; waiting is the cost, so rejecting would look free.
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
    """Cost of placing request `number`, which arrives now: the environment's own, in units of SLOs.

    It counts all requests from the start of the cluster to SETTLE_S after the last arrival played, those in flight now
    and then included; only differences between placements of one request mean anything. The cluster is left alone, and
    so is the base policy: a deep copy of it decides, with the memory it has now.

    Args:
        cluster: at the request's arrival; the request is not submitted yet.
        placement: where it goes.
        number: its index in `requests`.
        requests: all of them.
        base: places those that follow.
        horizon_requests: how many of them are played.
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
