"""Rules that never deflect: `random`, `round-robin`, `static`."""

import numpy as np

from envs.cluster import Placement, RequestView, RouterView, prefill_then_decode


class Random:
    """Prefill on a random prefill node, decode on the decode nodes in turn."""

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
    """Prefill nodes in turn, decode nodes in turn."""

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
    """Fixed phases, first come first served (DistServe, arXiv 2401.09670).

    Prefill on the prefill node with the least pending prefill work in tokens, decode on the decode node with the fewest
    unfinished requests; both from the router's own fresh counters. Never deflects.
    """

    name = "static"

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        """Place one request."""
        return prefill_then_decode(view.shortest_prefill_queue(), view.least_loaded_decode_node())
