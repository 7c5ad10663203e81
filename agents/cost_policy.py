"""A policy that uses the choice with the least parametric cost."""

from math import inf

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
        known_decode_nodes: on clusters with more decode nodes, crowded nodes are not used (`envs.crowding`). Weights
            that were searched on two decode nodes may fill one of them up to the TBT SLO on purpose, and know how far
            they can go there; among four, they go too far.
    """

    def __init__(self, name: str, weights: np.ndarray, known_decode_nodes: float = inf) -> None:
        self.name = name
        self._known_decode_nodes = known_decode_nodes
        self._weights: list[float] = weights.tolist()
        if len(self._weights) != len(TERMS):
            raise ValueError(f"{name}: {len(self._weights)} weights, but there are {len(TERMS)} terms")

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        choices = Choices.of(request, view, "pairs")
        guarded = len(view.topology.decode_nodes) > self._known_decode_nodes
        rows = uncrowded_rows(choices) if guarded else choices.feasible
        return choices.placement(least_cost_row(choices, self._weights, rows))
