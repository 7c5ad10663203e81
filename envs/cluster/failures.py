"""The effects of disturbances: a node slows down, its links degrade, or it is lost."""

from collections.abc import Callable

from simpy import Event

from envs.cluster.clock import Clock
from envs.cluster.disturbance import Disturbance
from envs.cluster.engine import Engine
from envs.cluster.kv_transfer import KvTransfers
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.request import Request
from envs.cluster.router_view import first_least
from envs.cluster.topology import Topology
from hardware_profiles import InputError


class Failures:
    """Applies disturbances to a cluster.

    Args:
        clock: simulated time.
        topology: the cluster's topology.
        engines: the engines of all nodes.
        transfers: the transfers of KV.
        lifecycle: the requests.
        place_again: places a request that was on a lost node.
    """

    def __init__(
        self,
        clock: Clock,
        topology: Topology,
        engines: list[Engine],
        transfers: KvTransfers,
        lifecycle: Lifecycle,
        place_again: Callable[[Request], None],
    ) -> None:
        self._clock = clock
        self._topology = topology
        self._engines = engines
        self._transfers = transfers
        self._lifecycle = lifecycle
        self._place_again = place_again

    def disturb(self, event: Event) -> None:
        """Apply the disturbance that is the event's value."""
        disturbance: Disturbance | None = event.value
        assert disturbance is not None
        node = disturbance.node
        if disturbance.kind == "speed":
            self._engines[node].change_law(self._topology.laws[node].scaled(1.0 / disturbance.factor))
        elif disturbance.kind == "link":
            self._transfers.network.degrade(node, disturbance.factor)
        else:
            self._lose(node)

    def _lose(self, node: int) -> None:
        """Remove a node forever, and place the requests on it again.

        Raises:
            InputError: it was the last node of its role.
        """
        topology = self._topology
        topology.lose(node)
        if not (topology.prefill_nodes and topology.decode_nodes):
            raise InputError(f"disturbance at {self._clock.now_s:g} s: node {node} was the last of its kind")
        if self._transfers.caches:
            self._transfers.caches[node].clear()
        for engine in self._engines:
            engine.pause()
        asking = set(self._engines[node].scheduler.awaiting)
        self._engines[node].halt()
        displaced = []
        for request in list(self._lifecycle.in_flight.values()):
            if request.at_node == node:
                if request.decode_node != node:
                    self._transfers.forget(request)
                    self._engines[request.decode_node].scheduler.enqueued_tokens -= request.rest_tokens
                displaced.append(request)
            elif request.decode_node == node:
                asked = request in asking or request.reserved_tokens > 0
                self._transfers.forget(request)
                self._lifecycle.moves(request, self._other_decode_node(request))
                if request.rest_tokens:
                    self._engines[request.decode_node].scheduler.enqueued_tokens += request.rest_tokens
                if asked:
                    self._transfers.ask_again(request)
        for request in sorted(displaced, key=lambda request: request.index):
            self._lifecycle.displace(request)
            self._place_again(request)
        for engine in self._engines:
            engine.resume()

    def _other_decode_node(self, request: Request) -> int:
        """The node that decodes a request whose decode node is lost: the least loaded one.

        Decode nodes are preferred; the request's prefill node is excluded, because the KV must move.
        """
        topology = self._topology
        for nodes in (topology.decode_nodes, topology.prefill_nodes):
            others = [node for node in nodes if node != request.prefill_node]
            if others:
                return first_least(others, self._lifecycle.counters.decode_requests)
        raise AssertionError("a node of each role is left, and one of them is not the prefill node")
