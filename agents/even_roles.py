"""Even roles: a policy that was trained on evenly divided nodes sees any cluster like that.

Which nodes count as prefill nodes is up to the router (`envs.cluster.Topology`). On 3P1D, a policy that knows 2P2D is
better off with two nodes of each role than with a division that it has never seen.
"""

from collections.abc import Mapping
from typing import Any

from envs.cluster import OtherRolesView, RouterView, evenly_divided, parse_shape


def trained_evenly(training: Mapping[str, Any]) -> bool:
    """Whether a policy with this description of its training knows evenly divided nodes only."""
    shapes = [parse_shape(str(shape)) for shape in training.get("clusters", ())]
    return bool(shapes) and all(shape == evenly_divided(*shape) for shape in shapes)


class EvenRoles:
    """Shows views of clusters with evenly divided nodes, see `Topology.evenly_divided`."""

    def __init__(self) -> None:
        self._given: RouterView | None = None
        self._lost: frozenset[int] = frozenset()

    def of(self, view: RouterView) -> RouterView:
        """The cluster with evenly divided nodes; the view itself if they are."""
        if view is not self._given or view.topology.lost != self._lost:
            self._given, self._lost = view, view.topology.lost
            topology = view.topology.evenly_divided()
            self._seen = view if topology is view.topology else OtherRolesView(view, topology)
        return self._seen
