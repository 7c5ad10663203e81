"""The cluster: engines and links on one clock, and the router's counters."""

from collections import deque
from collections.abc import Callable
from copy import copy
from math import isnan, nan

from simpy import Event

from envs.cluster.clock import Clock
from envs.cluster.disturbance import Disturbance
from envs.cluster.engine import Engine
from envs.cluster.gaps import GapLog
from envs.cluster.network import Network
from envs.cluster.placement import Placement
from envs.cluster.prefix_cache import PrefixCache
from envs.cluster.request import RequestRecord, Sequence
from envs.cluster.topology import ClusterConfig, Topology
from envs.cluster.view import ClusterView, Counters, first_least
from envs.cluster.waiting import WaitingCost
from envs.workload import HASH_BLOCK_TOKENS
from hardware_profiles import InputError


class Cluster:
    """Engines, links and clock of a disaggregated serving cluster.

    A request's life: `submit` queues its prompt on the prefill node. When that is computed, the decode node's scheduler
    reserves KV at its next step boundary (in order, waiting while there is no room) and pulls it. The sequence joins
    the decode batch at the first step boundary after the transfer; its first token comes out of that step. A deflected
    prompt is prefilled in chunks on the decode node itself; its first token comes out of the last chunk's step. Of a
    split prompt the first part takes the first way and the rest, once that part's KV has come, the second.

    With a prefix cache (`ClusterConfig.prefix_cache`) a prompt's first chunk starts after the blocks that its node has
    when it is scheduled, and those that the decode node has when it reserves KV are not sent. A node's cache takes a
    prompt's blocks when they are computed or have arrived there. With KV streaming (`ClusterConfig.kv_streaming`) the
    decode node is asked for KV when the first chunk is computed; what is computed by then, and after each chunk what
    has come since, is sent as one part, one part after the other, each with the link's latency.

    Attributes:
        clock: simulated time.
        topology: what never changes.
        gaps: the gaps between tokens.
        in_flight: submitted and unfinished sequences by index.
        waiting: requests that wait for their first token, and what waiting has cost.
        displaced: requests placed again because their node was lost.
        prefix_hit_tokens: tokens that came out of a prefix cache and were not computed.

    Args:
        config: the cluster.
        on_record: called with the record of each finished request, in order of completion.
        on_displaced: places a request whose node was lost; None: shortest prefill queue, fewest decode requests.
        topology: of `config`, where one is at hand.
    """

    __slots__ = (
        "_awaiting_kv",
        "_by_parts",
        "_caches",
        "_last_pull_s",
        "_on_displaced",
        "_on_record",
        "_sent_tokens",
        "_streaming",
        "_view",
        "clock",
        "config",
        "counters",
        "deflected",
        "displaced",
        "engines",
        "gaps",
        "in_flight",
        "kv_bytes_moved",
        "network",
        "prefix_hit_tokens",
        "topology",
        "waiting",
    )

    def __init__(
        self,
        config: ClusterConfig,
        on_record: Callable[[RequestRecord], object],
        on_displaced: Callable[[Sequence], Placement] | None = None,
        topology: Topology | None = None,
    ) -> None:
        self.config = config
        self.topology = topology = topology if topology is not None else Topology(config)
        self.clock = Clock()
        self.gaps = GapLog()
        self.counters = Counters(topology.nodes)
        self.engines = [
            Engine(
                index,
                self.clock,
                topology.laws[index],
                topology.kv_capacity_tokens[index],
                int(config.kv_watermark * topology.kv_capacity_tokens[index]),
                config.token_budget,
                config.max_seqs,
                config.max_prompts,
                config.report_age_s,
                self.gaps,
                self,
            )
            for index in range(topology.nodes)
        ]
        self.network = Network(
            self.clock,
            tuple(topology.hosts),
            tuple(topology.nics),
            config.profile.inter_node,
            config.profile.intra_node,
            self._transferred,
        )
        self._streaming = config.kv_streaming
        for engine in self.engines:
            engine.streams = config.kv_streaming
        self._caches = (
            [PrefixCache(tokens, config.report_age_s) for tokens in topology.prefix_cache_tokens]
            if config.prefix_cache
            else []
        )
        self.prefix_hit_tokens = 0
        self._by_parts = config.prefix_cache or config.kv_streaming
        # By parts: of sequences for which KV is reserved, the first tokens that are on the decode node or on their way.
        self._sent_tokens: dict[Sequence, int] = {}
        self._view = ClusterView(self.clock, topology, self.counters, self.engines, config.report_age_s, self._caches)
        self._on_record = on_record
        self._on_displaced = on_displaced if on_displaced is not None else self._default_placement
        self._awaiting_kv: list[deque[Sequence]] = [deque() for _ in range(topology.nodes)]
        self._last_pull_s = [-1.0] * topology.nodes  # when the latest pull that is an event of its own comes, or came
        self.in_flight: dict[int, Sequence] = {}
        self.kv_bytes_moved = 0
        self.deflected = 0
        self.waiting = WaitingCost()
        self.displaced = 0
        for disturbance in config.disturbances:
            self.clock.call_first_at(disturbance.at_s, self._disturb, disturbance)

    def copy(self, on_record: Callable[[RequestRecord], object]) -> "Cluster":
        """A cluster in the same state that plays on independently; its log of gaps starts empty.

        Costs what is in flight, whatever has gone before.

        Args:
            on_record: called with the records of the requests that finish in the copy.
        """
        twin = Cluster(self.config, on_record, topology=copy(self.topology))
        twins = {seq: seq.copy() for seq in self.in_flight.values()}
        twin.in_flight = {seq.index: seq for seq in twins.values()}
        twin.counters = twin._view.counters = self.counters.copy()
        twin.waiting = self.waiting.copy(twins)
        twin.kv_bytes_moved = self.kv_bytes_moved
        twin.deflected = self.deflected
        twin.displaced = self.displaced
        owners: dict[object, object] = {self: twin, self.network: twin.network}
        for engine, engine_twin in zip(self.engines, twin.engines, strict=True):
            engine_twin.copy_work(engine, twins)
            owners[engine] = engine_twin
        twin.network.copy_transfers(self.network, twins)
        twin._caches[:] = [cache.copy() for cache in self._caches]  # the view's too
        twin.prefix_hit_tokens = self.prefix_hit_tokens
        twin._sent_tokens = {twins[seq]: tokens for seq, tokens in self._sent_tokens.items()}
        twin._last_pull_s = self._last_pull_s.copy()
        twin._awaiting_kv = [deque([twins[seq] for seq in waiting]) for waiting in self._awaiting_kv]
        twin.clock.copy_calls(self.clock, owners, twins)
        return twin

    # ---- the router's side --------------------------------------------------------------------------------------

    def view(self) -> ClusterView:
        """The cluster as its router sees it; the same object every time."""
        return self._view

    def submit(self, seq: Sequence, placement: Placement) -> None:
        """Place a request that has arrived now.

        Raises:
            InputError: a node that does not exist or cannot ever hold the request's KV, or an empty chunk.
        """
        prefill_node, decode_node, chunk_plan, split_tokens = placement
        self._check(seq, prefill_node, decode_node, chunk_plan, split_tokens)
        self.counters.count_arrival(seq.arrival_s, seq.prompt_tokens)
        self.waiting.requests[seq] = None
        self.in_flight[seq.index] = seq
        self._place(seq, prefill_node, decode_node, chunk_plan, split_tokens)

    def _place(
        self, seq: Sequence, prefill_node: int, decode_node: int, chunk_plan: tuple[int, ...], split_tokens: int
    ) -> None:
        seq.chunk_plan = chunk_plan
        seq.prefill_node = prefill_node
        seq.decode_node = decode_node
        seq.queued = True
        counters = self.counters
        if split_tokens:
            seq.chunk_plan = ()
            seq.rest_plan = chunk_plan
            seq.rest_tokens = seq.target_tokens - split_tokens
            seq.target_tokens = split_tokens
            self._count_rest(seq, 1)
        counters.queued_prompts[prefill_node] += 1
        counters.queued_prompt_tokens[prefill_node] += seq.target_tokens
        counters.decode_requests[decode_node] += 1
        counters.decode_prompt_tokens[decode_node] += seq.prompt_tokens
        if prefill_node == decode_node and prefill_node >= self.topology.first_decode_node:
            counters.deflected_requests[decode_node] += 1
            self.deflected += 1
        self.engines[prefill_node].add_prompt(seq)

    def _dequeue(self, seq: Sequence) -> None:
        """A queued prompt is computed, or lost."""
        if not seq.queued:
            return  # recomputed after a preemption: the router has not sent it
        seq.queued = False
        node = seq.prefill_node
        counters = self.counters
        counters.queued_prompts[node] -= 1
        counters.queued_prompt_tokens[node] -= seq.target_tokens
        if node == seq.decode_node and node >= self.topology.first_decode_node:
            counters.deflected_requests[node] -= 1

    def _count_rest(self, seq: Sequence, sign: int) -> None:
        """The rest of a split prompt waits on its decode node (1), or does no longer (-1)."""
        counters = self.counters
        node = seq.decode_node
        counters.queued_prompts[node] += sign
        counters.queued_prompt_tokens[node] += sign * seq.rest_tokens
        counters.deflected_requests[node] += sign
        if sign > 0:
            self.engines[node].enqueued_tokens += seq.rest_tokens  # those that are computed count there anyway

    def _rest_done(self, seq: Sequence) -> None:
        """The rest of a split prompt, if it was one, is computed, or lost."""
        if seq.rest_tokens:
            self._count_rest(seq, -1)
            seq.rest_tokens = 0

    def _check(
        self, seq: Sequence, prefill_node: int, decode_node: int, chunk_plan: tuple[int, ...], split_tokens: int
    ) -> None:
        capacities = self.topology.kv_capacity_tokens
        nodes = len(capacities)
        if not 0 <= prefill_node < nodes > decode_node >= 0:
            raise InputError(f"{Placement(prefill_node, decode_node)} names a node outside 0 to {nodes - 1}")
        if chunk_plan and min(chunk_plan) < 1:
            raise InputError(f"{Placement(prefill_node, decode_node, chunk_plan)} has a chunk of less than one token")
        if split_tokens and not (prefill_node != decode_node and 0 < split_tokens < seq.prompt_tokens):
            raise InputError(
                f"{Placement(prefill_node, decode_node, chunk_plan, split_tokens)} splits a prompt of"
                f" {seq.prompt_tokens} tokens: it takes two nodes, and a token for each"
            )
        # One token of slack: a decode step needs room for its token.
        needed = seq.prompt_tokens + seq.output_tokens + 1
        if needed > capacities[prefill_node] or needed > capacities[decode_node]:
            node = prefill_node if needed > capacities[prefill_node] else decode_node
            raise InputError(
                f"request {seq.index}: {seq.prompt_tokens} prompt and {seq.output_tokens} output tokens do not fit"
                f" the KV capacity of node {node}, {capacities[node]} tokens"
            )

    # ---- what engines and links tell ----------------------------------------------------------------------------

    def prefilled(self, seq: Sequence) -> None:
        """A prompt is computed on a node that does not decode it."""
        self._dequeue(seq)
        if self._caches:
            self._caches[seq.prefill_node].use(_computed_blocks(seq), self.clock._now)
        if self._streaming:
            self.chunk_computed(seq)
        else:
            self._call_for_pull(seq)

    def prefilled_here(self, seq: Sequence) -> None:
        """A prompt is computed on the node that decodes it."""
        self._dequeue(seq)
        self._rest_done(seq)
        if self._caches:
            self._caches[seq.decode_node].use(seq.block_hashes, self.clock._now)

    def cached_prefix(self, seq: Sequence, node: int) -> int:
        """Start a prompt after the tokens that the node's prefix cache has; returns how many.

        The chunks of its plan that these cover are dropped: those left were planned for the context they get.
        """
        if not self._caches:
            return 0
        seq.hit_tokens = seq.prefilled_tokens = hit = self._hit_tokens(seq, node)
        self.prefix_hit_tokens += hit
        plan = seq.chunk_plan
        planned = 0
        while planned < hit and len(plan) > 1:
            planned += plan[0]
            plan = plan[1:]
        seq.chunk_plan = plan
        return hit

    def _hit_tokens(self, seq: Sequence, node: int) -> int:
        """Tokens of a sequence that a node's prefix cache has; never all of them, as the last one gives the next."""
        cached = self._caches[node].prefix_tokens(seq.block_hashes)
        return min(cached, seq.prompt_tokens, seq.target_tokens - 1)

    def chunk_computed(self, seq: Sequence) -> None:
        """Streaming: there is more KV to send."""
        if isnan(seq.pull_s):
            self._call_for_pull(seq)
        elif seq in self._sent_tokens:  # else it still waits for room
            self._send_part(seq)

    def _call_for_pull(self, seq: Sequence) -> None:
        """Have the decode node pull a sequence's KV when its scheduler runs, which it does between steps only."""
        decode_node = seq.decode_node
        engine = self.engines[decode_node]
        seq.pull_s = pull_s = engine.next_schedule_s()
        now = self.clock._now
        if (
            self._last_pull_s[decode_node] < now  # nobody is before it
            and not (self._awaiting_kv[decode_node] or self._by_parts)
            and engine.reserve_ahead(seq.target_tokens + seq.rest_tokens)
        ):
            self._transfer(seq, pull_s)
        elif pull_s > now:
            self._last_pull_s[decode_node] = pull_s
            self.clock.call_first_at(pull_s, self._pull_event, seq)
        else:
            self._pull(seq)

    def _transfer(self, seq: Sequence, at_s: float) -> None:
        kv_bytes = self.topology.kv_bytes(seq.target_tokens)
        self.kv_bytes_moved += kv_bytes
        self.network.start(seq, seq.prefill_node, seq.decode_node, kv_bytes, at_s)

    def _pull_event(self, event: Event) -> None:
        seq: Sequence | None = event.value
        assert seq is not None
        if seq.pull_s == self.clock._now:  # else its node was lost in the meantime
            self._pull(seq)

    def _pull(self, seq: Sequence) -> None:
        waiting = self._awaiting_kv[seq.decode_node]
        waiting.append(seq)
        if len(waiting) == 1:
            self._send(seq.decode_node)

    def _send(self, decode_node: int) -> None:
        """Start the transfers, in order, that the decode node has room for."""
        waiting = self._awaiting_kv[decode_node]
        engine = self.engines[decode_node]
        while waiting and engine.reserve(waiting[0].target_tokens + waiting[0].rest_tokens):
            seq = waiting.popleft()
            if self._by_parts:
                held = self._hit_tokens(seq, decode_node) if self._caches else 0
                self._sent_tokens[seq] = self.topology.whole_blocks(held)
                self._send_part(seq)
                continue
            self._transfer(seq, self.clock._now)

    def _send_part(self, seq: Sequence) -> None:
        """Send the whole blocks that are computed and not sent yet, unless others are under way."""
        sent = self._sent_tokens[seq]
        computed = seq.prefilled_tokens
        if computed < seq.target_tokens:
            computed = self.topology.whole_blocks(computed)
        if computed > sent and not self.network.sends(seq):
            kv_bytes = self.topology.kv_bytes(computed) - self.topology.kv_bytes(sent)
            self._sent_tokens[seq] = computed
            self.kv_bytes_moved += kv_bytes
            self.network.start(seq, seq.prefill_node, seq.decode_node, kv_bytes, self.clock._now)

    def _part_arrived(self, seq: Sequence) -> bool:
        """Send what has been computed since, if any; returns whether all of it has arrived."""
        if self._sent_tokens[seq] < seq.target_tokens:
            self._send_part(seq)
            return False
        del self._sent_tokens[seq]
        if self._caches:
            self._caches[seq.decode_node].use(_computed_blocks(seq), self.clock._now)
        return True

    def _transferred(self, seq: Sequence) -> None:
        if self._by_parts and not self._part_arrived(seq):
            return
        if isnan(seq.kv_ready_s):
            seq.kv_ready_s = self.clock._now
        prefill_node = seq.prefill_node
        self.engines[prefill_node].release(seq.target_tokens)
        if self._awaiting_kv[prefill_node]:  # it decodes too
            self._send(prefill_node)
        if seq.rest_tokens:
            self.engines[seq.decode_node].add_rest(seq)
        else:
            self.engines[seq.decode_node].join(seq)

    def first_token(self, seq: Sequence) -> None:
        """A first token is out (`seq.first_token_s`, now or at a step boundary about to come)."""
        self.waiting.end(seq)

    def finished(self, seq: Sequence) -> None:
        """A request is done: count it, pass its record on, and use the KV it freed."""
        node = seq.decode_node
        self.counters.decode_requests[node] -= 1
        self.counters.decode_prompt_tokens[node] -= seq.prompt_tokens
        del self.in_flight[seq.index]
        self._on_record(seq.record())
        if self._awaiting_kv[node]:
            self._send(node)

    def kv_room(self, node: int) -> None:
        """A node that could not say whether it has room for a transfer can now."""
        self._send(node)

    # ---- what goes wrong ----------------------------------------------------------------------------------------

    def _disturb(self, event: Event) -> None:
        disturbance: Disturbance | None = event.value
        assert disturbance is not None
        node = disturbance.node
        if disturbance.kind == "speed":
            self.engines[node].change_law(self.topology.laws[node].scaled(1.0 / disturbance.factor))
        elif disturbance.kind == "link":
            self.network.degrade(node, disturbance.factor)
        else:
            self._lose(node)

    def _lose(self, node: int) -> None:
        """Take a node out for good, and place again what was on it.

        Raises:
            InputError: it was the last of its kind.
        """
        topology = self.topology
        topology.lose(node)
        if not (topology.prefill_nodes and topology.decode_nodes):
            raise InputError(f"disturbance at {self.clock.now:g} s: node {node} was the last of its kind")
        if self._caches:
            self._caches[node].clear()
        lost = self.engines[node].halt()
        freed: set[int] = set()
        for seq in self.in_flight.values():
            if node not in (seq.prefill_node, seq.decode_node):
                continue
            sending = self.network.cancel(seq)
            reserved = self._sent_tokens.pop(seq, None) is not None or sending
            waiting = seq in self._awaiting_kv[seq.decode_node]
            if waiting:
                self._awaiting_kv[seq.decode_node].remove(seq)
            gone = seq in lost
            if gone or (seq.prefill_node == node and (reserved or waiting or seq.pull_s >= self.clock.now)):
                # Computed there and not all sent yet. What was reserved for it is free again.
                seq.pull_s = nan
                if reserved:
                    self.engines[seq.decode_node].unreserve(seq.target_tokens + seq.rest_tokens)
                    freed.add(seq.decode_node)
                if not gone:
                    lost.append(seq)
            elif seq.decode_node == node:
                # Still to be computed, or computed and safe on its prefill node: it decodes elsewhere.
                self.counters.decode_requests[node] -= 1
                self.counters.decode_prompt_tokens[node] -= seq.prompt_tokens
                if seq.rest_tokens:
                    self._count_rest(seq, -1)
                others = [other for other in topology.decode_nodes if other != seq.prefill_node]
                stays = not others  # it is prefilled on the only decode node left
                seq.decode_node = seq.prefill_node if stays else first_least(others, self.counters.decode_requests)
                self.counters.decode_requests[seq.decode_node] += 1
                self.counters.decode_prompt_tokens[seq.decode_node] += seq.prompt_tokens
                if stays:
                    self._decode_where_prefilled(seq)
                    continue
                if seq.rest_tokens:
                    self._count_rest(seq, 1)
                if reserved or waiting:
                    self._call_for_pull(seq)
        for seq in sorted(lost, key=lambda seq: seq.index):
            self._dequeue(seq)
            if seq.decode_node != node:
                self.engines[seq.decode_node].enqueued_tokens -= seq.rest_tokens
            self._rest_done(seq)
            self.counters.decode_requests[seq.decode_node] -= 1
            self.counters.decode_prompt_tokens[seq.decode_node] -= seq.prompt_tokens
            seq.target_tokens = seq.prompt_tokens + seq.generated_tokens
            seq.prefilled_tokens = seq.kv_tokens = 0
            if isnan(seq.first_token_s):
                seq.prefill_start_s = seq.prefill_end_s = seq.kv_ready_s = nan
            self.displaced += 1
            placement = self._on_displaced(seq)
            self._check(seq, *placement)
            self._place(seq, *placement)
        for decode_node in freed:  # nobody else tells those that wait there
            self._send(decode_node)

    def _decode_where_prefilled(self, seq: Sequence) -> None:
        """Let a sequence decode on the node that prefills it, or that has its computed KV."""
        node = seq.decode_node
        seq.pull_s = nan  # nobody is to pull it
        if not seq.queued:
            if isnan(seq.kv_ready_s):
                seq.kv_ready_s = self.clock.now
            self.engines[node].join(seq)
            return
        self.counters.deflected_requests[node] += 1
        self.engines[node].enqueued_tokens += seq.rest_tokens
        self.counters.queued_prompt_tokens[node] += seq.rest_tokens
        seq.target_tokens += seq.rest_tokens
        seq.rest_tokens = 0

    def _default_placement(self, _: Sequence) -> Placement:
        return Placement(self._view.shortest_prefill_queue(), self._view.least_loaded_decode_node())

    # ---- cost ---------------------------------------------------------------------------------------------------

    def waiting_cost(self) -> float:
        """Time waited for first tokens so far, in units of each request's TTFT SLO, summed over requests.

        Each request adds (now - arrival) / SLO until its first token is out, TTFT / SLO from then on.
        """
        self._settle()
        return self.waiting.linear(self.clock._now)

    def tail_cost(self) -> float:
        """The same with each request's wait squared: (now - arrival)^2 / SLO^2, in the end (TTFT / SLO)^2."""
        self._settle()
        return self.waiting.squared(self.clock._now)

    def _settle(self) -> None:
        for engine in self.engines:
            engine.settle()

    def tbt_cost(self) -> float:
        """Time by which gaps between tokens have exceeded their TBT SLO so far, in units of the SLO, summed."""
        return sum([engine.tbt_excess() for engine in self.engines])


def _computed_blocks(seq: Sequence) -> tuple[int, ...]:
    """Hashes of a computed prompt's blocks; of a split prompt's first part the whole ones."""
    return seq.block_hashes[: seq.target_tokens // HASH_BLOCK_TOKENS] if seq.rest_tokens else seq.block_hashes
