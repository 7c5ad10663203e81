"""Rules that never deflect: `random`, `round-robin`, `static`."""

import numpy as np

from envs.cluster import Placement, RequestView, RouterView, prefill_then_decode


class Random:
    """Prefill on a random prefill node; decode on the decode nodes in turn."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x7A4D,)))
        self._placed = 0

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        """Place one request."""
        topology = view.topology
        prefill = topology.prefill_nodes[self._random.integers(len(topology.prefill_nodes))]
        decode = topology.decode_nodes[self._placed % len(topology.decode_nodes)]
        self._placed += 1
        return Placement(prefill, decode)


class RoundRobin:
    """Use the prefill nodes in turn and the decode nodes in turn."""

    name = "round-robin"

    def __init__(self) -> None:
        self._placed = 0

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        """Place one request."""
        topology = view.topology
        turn = self._placed
        self._placed += 1
        return Placement(
            topology.prefill_nodes[turn % len(topology.prefill_nodes)],
            topology.decode_nodes[turn % len(topology.decode_nodes)],
        )


class Static:
    """Separate phases, first come first served (DistServe, arXiv 2401.09670).

    Prefill on the prefill node with the fewest queued prompt tokens; decode on the decode node with the fewest
    unfinished requests. Both are the router's own up-to-date counts. It never deflects.

    Adaptation to prefix caches, which DistServe does not have: the queued tokens of a prefill node include this
    prompt's uncached tokens.

    Args:
        prefix: take cached tokens into account.
    """

    name = "static"

    def __init__(self, prefix: bool = True) -> None:
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        if self._prefix and view.has_prefix_caches:
            pending = view.counters.queued_prompt_tokens
            nodes = view.topology.prefill_nodes
            prefill_node = min(nodes, key=lambda node: pending[node] + view.uncached_tokens(request, node))
        else:
            prefill_node = view.shortest_prefill_queue()
        return prefill_then_decode(prefill_node, view.least_loaded_decode_node())
