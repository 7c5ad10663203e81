"""Warm-up policies, which place the requests before an episode that starts in a running cluster.

| name | placement |
|---|---|
| `static` | prefill node with the fewest queued tokens, decode node with the fewest unfinished requests |
| `shortest-ttft` | the feasible choice with the least predicted TTFT |
| `random` | a feasible choice at random |
"""

from typing import Literal, get_args

import numpy as np

from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, request_of, view_of
from envs.workload import Row
from hardware_profiles import InputError

WarmUp = Literal["static", "shortest-ttft", "random"]
WARM_UPS: tuple[str, ...] = get_args(WarmUp)


def check_warm_up(name: str) -> None:
    """Raise InputError if there is no such warm-up policy."""
    if name not in WARM_UPS:
        raise InputError(f"warm_up {name!r} is not one of {', '.join(WARM_UPS)}")


def warm(
    cluster: Cluster, requests: list[Row], last: int, policy: WarmUp, choice_set: ChoiceSet, rng: np.random.Generator
) -> None:
    """Place the first requests on a cluster, up to the arrival of request `last`, which is not placed.

    Args:
        cluster: an empty one.
        requests: in order of arrival.
        last: index of the request at which the warm-up ends.
        policy: the warm-up policy.
        choice_set: the choices of "shortest-ttft" and "random".
        rng: generator of "random".
    """
    view = cluster.view()
    for number in range(last):
        row = requests[number]
        cluster.clock.advance_to(row[0])
        if policy == "static":
            placement = view.default_placement()
        else:
            choices = Choices.of(view_of(number, row), view, choice_set)
            if policy == "random":
                placement = choices.placement(int(rng.choice(choices.feasible_rows())))
            else:
                placement = choices.placement(choices.soonest())
        cluster.submit(request_of(number, row), placement)
    cluster.clock.advance_to(requests[last][0])
