"""How a trained policy sees a cluster: with roles that it knows from training, and with measured speeds.

Which nodes count as prefill nodes is up to the router (`envs.cluster.Topology`). On 3P1D, a policy that knows 2P2D is
better off with two nodes of each role than with a division that it has never seen, and a node too slow for the TBT SLO
is better off as a prefill node. Predictions assume the speeds of the topology; where nodes turn out slower than the
router was told, what it has measured is closer.
"""

from collections.abc import Mapping
from typing import Any

from envs.cluster import (
    OtherTopologyView,
    Placement,
    Policy,
    RequestView,
    RouterView,
    Topology,
    evenly_divided,
    parse_shape,
)
from policies import make

_CHECK_S = 0.5
"""Time between two looks at the measured speeds, seconds of the cluster's clock."""
_NOTABLE = 0.05  # relative change of a measured speed; smaller ones would change predictions with every report


def trained_evenly(training: Mapping[str, Any]) -> bool:
    """Whether a policy with this description of its training knows evenly divided nodes only."""
    shapes = [parse_shape(str(shape)) for shape in training.get("clusters", ())]
    return bool(shapes) and all(shape == evenly_divided(*shape) for shape in shapes)


def own_prefill_nodes(topology: Topology, tbt_slo_s: float) -> tuple[int, ...]:
    """The prefill nodes of evenly divided nodes: first those that are too slow to decode, then by index.

    A node is too slow if its typical decode step is longer than the engine may make steps with prompt tokens, unless
    all nodes are.
    """
    count, _ = evenly_divided(len(topology.prefill_nodes), len(topology.decode_nodes))
    limit_s = topology.slo_share * tbt_slo_s
    steps_s = topology.typical_decode_steps_s
    live = topology.live_nodes
    slow = [node for node in live if steps_s[node] > limit_s]
    if not slow or len(slow) == len(live):
        return live[:count]
    return tuple(sorted([*slow, *[node for node in live if node not in slow]][:count]))


class OwnView:
    """Shows views of clusters as a trained policy sees them.

    Args:
        roles: whether nodes have the roles of `own_prefill_nodes`.
        speeds: whether nodes have their measured speeds.
    """

    def __init__(self, roles: bool, speeds: bool) -> None:
        self._roles = roles
        self._measures = speeds
        self._given: RouterView | None = None
        self._lost: frozenset[int] = frozenset()
        self._speeds: tuple[float, ...] = ()
        self._checked_s = 0.0
        self._known: Topology | None = None  # with measured speeds and the roles of the cluster
        self._seen: dict[tuple[int, ...], RouterView] = {}  # by prefill nodes
        self._last: tuple[float, RouterView] | None = None  # the last request's TBT SLO, and what was shown

    def of(self, request: RequestView, view: RouterView) -> RouterView:
        """The cluster as the policy sees it when it places a request; the view itself if that is no different."""
        if view is not self._given or view.topology.lost != self._lost:
            self._given, self._lost = view, view.topology.lost
            self._know(view, (1.0,) * view.topology.nodes)
            self._checked_s = -_CHECK_S
        if self._measures and not self._checked_s <= view.now_s < self._checked_s + _CHECK_S:
            self._checked_s = view.now_s
            self._measure(view)
        if self._last is not None and self._last[0] == request.tbt_slo_s:
            return self._last[1]
        known = self._known
        assert known is not None
        prefill_nodes = own_prefill_nodes(known, request.tbt_slo_s) if self._roles else known.prefill_nodes
        if prefill_nodes not in self._seen:
            self._seen[prefill_nodes] = self._shown(view, known.with_roles(prefill_nodes))
        self._last = request.tbt_slo_s, self._seen[prefill_nodes]
        return self._last[1]

    def _measure(self, view: RouterView) -> None:
        """Take notable changes of the measured speeds into account."""
        measured = [view.measured_speed(node) for node in range(view.topology.nodes)]
        if any(abs(one - known) > _NOTABLE * known for one, known in zip(measured, self._speeds, strict=True)):
            self._know(view, tuple([round(speed, 2) for speed in measured]))

    def _know(self, view: RouterView, speeds: tuple[float, ...]) -> None:
        """Assume these speeds, relative to those of the cluster."""
        self._speeds = speeds
        self._seen = {}
        self._last = None
        self._known = view.topology.with_speeds(speeds)

    def _shown(self, view: RouterView, known: Topology) -> RouterView:
        """The view with a topology."""
        return view if known is view.topology else OtherTopologyView(view, known, self._speeds)


class WithOwnView:
    """A policy that sees clusters as a trained policy does, for training one that selects it.

    Args:
        policy: places the requests.
        roles: see `OwnView`.
    """

    def __init__(self, policy: Policy, roles: bool) -> None:
        self.name = policy.name
        self._policy = policy
        self._own_view = OwnView(roles, speeds=True)

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request."""
        return self._policy.place(request, self._own_view.of(request, view))


class RuleWithOwnView(WithOwnView):
    """A rule with the roles and speeds that a trained policy sees: `agents.own_view:RuleWithOwnView:base=RULE`.

    Args:
        base: the rule, with its knobs; it takes the rest of the name.
        seed: of a rule that draws random numbers.

    Raises:
        InputError: no such rule, knob or value.
    """

    def __init__(self, base: str, seed: int = 0) -> None:
        super().__init__(make(base, seed), roles=True)
