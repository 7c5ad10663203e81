"""Transfers of KV from the node that computed it to the node that decodes.

A computed prompt asks its decode node for room. When that node's scheduler has reserved it, the KV is sent, except the
part in the node's prefix cache. With streaming, a prompt asks for room when its first chunk is computed, and its KV is
sent in parts. If there is no room for `ClusterConfig.kv_hold_s`, the KV is dropped and the decode node computes the
prompt itself.
"""

from collections.abc import Mapping
from math import inf

from mypy_extensions import mypyc_attr
from simpy import Event

from envs.cluster.call import Call
from envs.cluster.config import ClusterConfig
from envs.cluster.engine import Engine
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.network import Network
from envs.cluster.prefix_cache import PrefixCache
from envs.cluster.request import Phase, Request
from envs.cluster.timeline import Timeline
from envs.cluster.topology import Topology
from envs.workload import HASH_BLOCK_TOKENS

PREFILLING = Phase.PREFILLING


@mypyc_attr(allow_interpreted_subclasses=True)
class KvTransfers:
    """Hands computed prompts over to the nodes that decode them.

    Attributes:
        engines: the engines of all nodes; set by the cluster.
        network: the links.
        caches: the prefix cache of each node; empty without prefix caching.
        bytes_moved: KV sent so far.

    Args:
        timeline: simulated time.
        config: options.
        topology: links and sizes.
        lifecycle: is notified of every change of a request's phase.
    """

    __slots__ = (
        "_by_parts",
        "_hold_numbers",
        "_hold_s",
        "_lifecycle",
        "_sent_tokens",
        "_streaming",
        "_timeline",
        "_topology",
        "bytes_moved",
        "caches",
        "engines",
        "network",
    )

    def __init__(self, timeline: Timeline, config: ClusterConfig, topology: Topology, lifecycle: Lifecycle) -> None:
        self._timeline = timeline
        self._topology = topology
        self._lifecycle = lifecycle
        self._streaming = config.kv_streaming
        self._by_parts = config.prefix_cache or config.kv_streaming
        self._hold_s = config.kv_hold_s
        self.engines: list[Engine] = []
        self.caches = (
            [PrefixCache(tokens, config.report_age_s) for tokens in topology.prefix_cache_tokens]
            if config.prefix_cache
            else []
        )
        self.network = Network(
            timeline,
            tuple(topology.hosts),
            tuple(topology.nics),
            config.profile.inter_node,
            config.profile.intra_node,
            self._part_arrived if self._by_parts else self._arrived,
        )
        self.bytes_moved = 0
        # Requests with room on their decode node, and how many of their first tokens are there or on their way.
        self._sent_tokens: dict[Request, int] = {}
        self._hold_numbers: dict[int, int] = {}  # by decode node: number of the pending call of `_end_hold`

    def copy_state(self, other: "KvTransfers", twins: Mapping[Request, Request]) -> None:
        """Copy another cluster's transfers; `twins` maps its requests to their copies."""
        self.network.copy_transfers(other.network, twins)
        self.caches[:] = [cache.copy() for cache in other.caches]  # in place: the router's view refers to the list
        self.bytes_moved = other.bytes_moved
        self._sent_tokens = {twins[request]: tokens for request, tokens in other._sent_tokens.items()}
        self._hold_numbers = other._hold_numbers.copy()

    # ---- what engines tell ------------------------------------------------------------------------------------------

    def prefilled(self, request: Request) -> None:
        """Handle a prompt that is computed on a node which does not decode it."""
        now_s = self._timeline.now_s
        request.hold_until_s = now_s + self._hold_s
        if not self._by_parts:
            at_s = self.engines[request.decode_node].reserve_ahead(request)
            if at_s >= 0.0:
                self._send_all(request, at_s)
            else:
                self._ask(request)
            return
        if self.caches:
            self.caches[request.prefill_node].use(_computed_blocks(request), now_s)
        if self._streaming:
            self.chunk_computed(request)
        else:
            self._ask(request)

    def prefilled_here(self, request: Request) -> None:
        """Handle a prompt that is computed on its decode node."""
        if self.caches:
            self.caches[request.decode_node].use(request.block_hashes, self._timeline.now_s)

    def chunk_computed(self, request: Request) -> None:
        """With streaming: send the KV of a computed chunk."""
        if request.reserved_tokens:
            self._send_part(request)
        elif request in self.engines[request.decode_node].scheduler.awaiting:
            self.wait(request.decode_node)  # a completely computed prompt has a time-out
        else:
            self._ask(request)

    def _ask(self, request: Request) -> None:
        """Ask the decode node for room; its scheduler calls `send`, now or later."""
        node = request.decode_node
        self.engines[node].ask_for_kv(request)
        if not request.reserved_tokens:
            self.wait(node)

    def send(self, request: Request) -> None:
        """Start sending a request's KV: its decode node has reserved room."""
        node = request.decode_node
        self._stop_waiting(node)
        if not self._by_parts:
            self._send_all(request, self._timeline.now_s)
            return
        self._sent_tokens[request] = self._topology.whole_blocks(self.cached_tokens(request, node))
        self._send_part(request)

    def cached_tokens(self, request: Request, node: int) -> int:
        """Tokens of a request in a node's prefix cache; never all, as computing the last one gives the next token."""
        if not self.caches:
            return 0
        cached = self.caches[node].prefix_tokens(request.block_hashes)
        return min(cached, request.prompt_tokens, request.target_tokens - 1)

    # ---- sending ----------------------------------------------------------------------------------------------------

    def _send_all(self, request: Request, at_s: float) -> None:
        kv_bytes = self._topology.kv_bytes(request.target_tokens)
        self.bytes_moved += kv_bytes
        self.network.start(request, request.prefill_node, request.decode_node, kv_bytes, at_s)

    def _send_part(self, request: Request) -> None:
        """Send the whole blocks that are computed and not sent yet, unless a transfer of the request is in progress."""
        sent = self._sent_tokens[request]
        computed = request.computed_tokens
        if computed < request.target_tokens:
            computed = self._topology.whole_blocks(computed)
        if computed > sent and not self.network.sends(request):
            kv_bytes = self._topology.kv_bytes(computed) - self._topology.kv_bytes(sent)
            self._sent_tokens[request] = computed
            self.bytes_moved += kv_bytes
            self.network.start(request, request.prefill_node, request.decode_node, kv_bytes, self._timeline.now_s)

    def _part_arrived(self, request: Request) -> None:
        """Send the KV computed since, or finish the transfer if all KV has arrived."""
        if self._sent_tokens[request] < request.target_tokens:
            self._send_part(request)
            return
        del self._sent_tokens[request]
        if self.caches:
            self.caches[request.decode_node].use(_computed_blocks(request), self._timeline.now_s)
        self._arrived(request)

    def _arrived(self, request: Request) -> None:
        sent_tokens = request.target_tokens
        self._lifecycle.arrived(request, self._timeline.now_s)
        self.engines[request.prefill_node].release(sent_tokens)
        self.engines[request.decode_node].take_arrived(request)

    # ---- KV that finds no room --------------------------------------------------------------------------------------

    def wait(self, node: int) -> None:
        """Schedule the time-out of the requests that wait for room on a node."""
        if node in self._hold_numbers:
            return
        until_s = min([request.hold_until_s for request in self.engines[node].scheduler.awaiting])
        if until_s < inf:
            call = Call(self._end_hold)
            call._value = node
            self._hold_numbers[node] = self._timeline.call_unless_cancelled(until_s, call)

    def _stop_waiting(self, node: int) -> None:
        """Cancel a node's time-out if no request waits there any more; it would prolong the run."""
        if node in self._hold_numbers and not self.engines[node].scheduler.awaiting:
            self._timeline.cancel(self._hold_numbers.pop(node))

    def _end_hold(self, event: Event) -> None:
        """Drop the KV of requests that have waited too long for room, on this node and all others at this instant."""
        now_s = self._timeline.now_s
        for engine in self.engines:
            engine.pause()
        for waited_for in list(self._hold_numbers):
            engine = self.engines[waited_for]
            awaiting = engine.scheduler.awaiting
            for request in [one for one in awaiting if one.hold_until_s <= now_s]:
                awaiting.remove(request)
                computed_tokens = request.target_tokens
                rest_tokens = request.rest_tokens
                self._lifecycle.expired(request)
                self.engines[request.prefill_node].release(computed_tokens)
                engine.add_expired(request, rest_tokens)
        node = event.value
        assert node is not None
        del self._hold_numbers[node]
        for engine in self.engines:
            engine.resume()
        if self.engines[node].scheduler.awaiting:
            self.wait(node)

    # ---- a lost node ------------------------------------------------------------------------------------------------

    def forget(self, request: Request) -> None:
        """Cancel everything between a request and its decode node."""
        if self.network.cancel(request):
            self.bytes_moved -= self._topology.kv_bytes(request.target_tokens)
        self._sent_tokens.pop(request, None)
        request.hold_until_s = inf
        self.engines[request.decode_node].forget(request)
        self._lifecycle.unreserved(request)
        self._stop_waiting(request.decode_node)

    def ask_again(self, request: Request) -> None:
        """Let a request that had asked for room ask its new decode node."""
        if request.phase != PREFILLING:
            request.hold_until_s = self._timeline.now_s + self._hold_s
        self._ask(request)


def _computed_blocks(request: Request) -> tuple[int, ...]:
    """Hashes of a computed prompt's blocks; for a split prompt's first part, those of whole blocks."""
    hashes = request.block_hashes
    return hashes[: request.target_tokens // HASH_BLOCK_TOKENS] if request.rest_tokens else hashes
