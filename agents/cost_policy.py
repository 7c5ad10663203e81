"""A policy that uses the choice with the least parametric cost."""

import numpy as np

from envs.choice_cost import TERMS, least_cost_row
from envs.choices import Choices
from envs.cluster import Placement, RequestView, RouterView
from envs.crowding import uncrowded_rows


class CostPolicy:
    """Uses the feasible choice out of all pairs of nodes that has the least cost (`envs.choice_cost`).

    Args:
        name: its name.
        weights: one per term, in the order of `envs.choice_cost.TERMS`.
        leaves_room: whether it leaves room for requests on their way (`envs.crowding`). Weights that were searched on
            one cluster may fill nodes up to the TBT SLO, and go beyond it on others.
    """

    def __init__(self, name: str, weights: np.ndarray, leaves_room: bool = True) -> None:
        self.name = name
        self._leaves_room = leaves_room
        self._weights: list[float] = weights.tolist()
        if len(self._weights) != len(TERMS):
            raise ValueError(f"{name}: {len(self._weights)} weights, but there are {len(TERMS)} terms")

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        choices = Choices.of(request, view, "pairs")
        rows = uncrowded_rows(choices) if self._leaves_room else choices.feasible
        return choices.placement(least_cost_row(choices, self._weights, rows))
