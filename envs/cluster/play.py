"""The inner loop of a run: requests arrive, are placed and submitted; in a file that can be compiled."""

from collections.abc import Callable
from time import perf_counter

from envs.cluster.cluster import Cluster
from envs.cluster.placement import Placement
from envs.cluster.request import RequestView, request_of, view_of
from envs.cluster.router_view import RouterView
from envs.workload import Row


def play(
    cluster: Cluster,
    requests: list[Row],
    place: Callable[[RequestView, RouterView], Placement | None],
    advance_to: Callable[[float], int],
    decision_s: list[float] | None,
) -> int:
    """Submit requests as they arrive.

    Args:
        cluster: an empty one.
        requests: in order of arrival.
        place: places a request, or rejects it with None.
        advance_to: lets the cluster work until a time, and returns how many events that took.
        decision_s: gets the wall time of each decision, seconds; None: none is taken.

    Returns:
        Events processed.
    """
    view = cluster.view()
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
            cluster.submit(arrived, placement)
    return events
