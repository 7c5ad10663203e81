"""The inner loop of a run: requests arrive, are placed and are submitted. This module can be compiled."""

from collections.abc import Callable
from time import perf_counter

from envs.cluster.cluster import Cluster
from envs.cluster.placement import checked_placement
from envs.cluster.request import RequestView, request_of, view_of
from envs.cluster.router_view import RouterView
from envs.workload import Row


def play(
    cluster: Cluster,
    requests: list[Row],
    place: Callable[[RequestView, RouterView], object],
    policy: str,
    advance_to: Callable[[float], int],
    decision_s: list[float] | None,
) -> int:
    """Submit requests as they arrive.

    Args:
        cluster: an empty cluster.
        requests: the requests in order of arrival.
        place: the policy; returns a `Placement`, or None to reject the request.
        policy: name of the policy, for error messages.
        advance_to: advances the cluster to a time and returns the number of events.
        decision_s: receives the wall time of each decision, seconds; None: decisions are not timed.

    Returns:
        Events processed.

    Raises:
        InputError: the policy returned something else, or a placement that the cluster does not allow.
    """
    view = cluster.view()
    nodes = cluster.topology.nodes
    events = 0
    for index, row in enumerate(requests):
        events += advance_to(row[0])
        request = view_of(index, row)
        if decision_s is None:
            placement = place(request, view)
        else:
            began = perf_counter()
            placement = place(request, view)
            decision_s.append(perf_counter() - began)
        arrived = request_of(index, row)
        if placement is None:
            cluster.reject(arrived)
        else:
            cluster.submit(arrived, checked_placement(placement, policy, index, nodes))
    return events
