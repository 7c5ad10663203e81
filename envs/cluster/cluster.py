"""The cluster: engines and links on one clock, and the router's counters."""

from collections import deque
from collections.abc import Callable

from simpy import Event

from envs.cluster.clock import Clock
from envs.cluster.engine import Engine
from envs.cluster.gaps import GapLog
from envs.cluster.network import Network
from envs.cluster.placement import Placement
from envs.cluster.request import RequestRecord, Sequence
from envs.cluster.topology import ClusterConfig, Topology
from envs.cluster.view import ClusterView, Counters
from hardware_profiles import InputError

_PLAIN_STATE = (
    "_square_per_s",
    "_square_per_s2",
    "_square_since",
    "_waited",
    "_waited_square",
    "_waiting_per_s",
    "_waiting_since",
    "deflected",
    "kv_bytes_moved",
    "waiting_requests",
)


class Cluster:
    """Engines, links and clock of a disaggregated serving cluster.

    A request's life: `submit` queues its prompt on the prefill node. When that is computed, the decode node's scheduler
    reserves KV at its next step boundary (in order, waiting while there is no room) and pulls it. The sequence joins
    the decode batch at the first step boundary after the transfer; its first token comes out of that step. A deflected
    prompt is prefilled in chunks on the decode node itself; its first token comes out of the last chunk's step.

    Attributes:
        clock: simulated time.
        topology: what never changes.
        gaps: the gaps between tokens.
        in_flight: submitted and unfinished sequences by index.
        waiting_requests: how many of them wait for their first token.

    Args:
        config: the cluster.
        on_record: called with the record of each finished request, in order of completion.
    """

    __slots__ = (
        "_awaiting_kv",
        "_on_record",
        "_square_per_s",
        "_square_per_s2",
        "_square_since",
        "_view",
        "_waited",
        "_waited_square",
        "_waiting_per_s",
        "_waiting_since",
        "clock",
        "config",
        "counters",
        "deflected",
        "engines",
        "gaps",
        "in_flight",
        "kv_bytes_moved",
        "network",
        "topology",
        "waiting_requests",
    )

    def __init__(self, config: ClusterConfig, on_record: Callable[[RequestRecord], object]) -> None:
        self.config = config
        self.topology = topology = Topology(config)
        self.clock = Clock()
        self.gaps = GapLog()
        self.counters = Counters(topology.nodes)
        self.engines = [
            Engine(
                index,
                self.clock,
                topology.laws[index],
                topology.kv_capacity_tokens[index],
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
            config.profile.inter_node,
            config.profile.intra_node,
            self._transferred,
        )
        self._view = ClusterView(self.clock, topology, self.counters, self.engines, config.report_age_s)
        self._on_record = on_record
        self._awaiting_kv: list[deque[Sequence]] = [deque() for _ in range(topology.nodes)]
        self.in_flight: dict[int, Sequence] = {}
        self.kv_bytes_moved = 0
        self.deflected = 0
        self.waiting_requests = 0
        # Waiting for first tokens in units of each request's TTFT SLO: over waiting requests the sums of 1 / SLO and of
        # arrival / SLO, and what those whose first token is out have waited. Then the same for its square.
        self._waiting_per_s = 0.0
        self._waiting_since = 0.0
        self._waited = 0.0
        self._square_per_s2 = 0.0
        self._square_per_s = 0.0
        self._square_since = 0.0
        self._waited_square = 0.0

    def copy(self, on_record: Callable[[RequestRecord], object]) -> "Cluster":
        """A cluster in the same state that plays on independently; its log of gaps starts empty.

        Costs what is in flight, whatever has gone before.

        Args:
            on_record: called with the records of the requests that finish in the copy.
        """
        twin = Cluster(self.config, on_record)
        twins = {seq: seq.copy() for seq in self.in_flight.values()}
        twin.in_flight = {seq.index: seq for seq in twins.values()}
        twin.counters = twin._view.counters = self.counters.copy()
        owners: dict[object, object] = {self: twin, self.network: twin.network}
        for engine, engine_twin in zip(self.engines, twin.engines, strict=True):
            engine_twin.copy_work(engine, twins)
            owners[engine] = engine_twin
        twin.network.copy_transfers(self.network, twins)
        twin._awaiting_kv = [deque([twins[seq] for seq in waiting]) for waiting in self._awaiting_kv]
        for name in _PLAIN_STATE:
            setattr(twin, name, getattr(self, name))
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
        prefill_node, decode_node, chunk_plan = placement
        self._check(seq, prefill_node, decode_node, chunk_plan)
        seq.prefill_node = prefill_node
        seq.decode_node = decode_node
        seq.chunk_plan = chunk_plan
        self.in_flight[seq.index] = seq
        prompt_tokens = seq.prompt_tokens
        counters = self.counters
        counters.count_arrival(seq.arrival_s, prompt_tokens)
        counters.queued_prompts[prefill_node] += 1
        counters.queued_prompt_tokens[prefill_node] += prompt_tokens
        counters.decode_requests[decode_node] += 1
        counters.decode_prompt_tokens[decode_node] += prompt_tokens
        if prefill_node == decode_node and prefill_node >= len(self.topology.prefill_nodes):
            counters.deflected_requests[decode_node] += 1
            self.deflected += 1
        self.waiting_requests += 1
        weight = 1.0 / seq.ttft_slo_s
        since = seq.arrival_s * weight
        self._waiting_per_s += weight
        self._waiting_since += since
        self._square_per_s2 += weight * weight
        self._square_per_s += weight * since
        self._square_since += since * since
        self.engines[prefill_node].add_prompt(seq)

    def _check(self, seq: Sequence, prefill_node: int, decode_node: int, chunk_plan: tuple[int, ...]) -> None:
        capacities = self.topology.kv_capacity_tokens
        nodes = len(capacities)
        if not (0 <= prefill_node < nodes and 0 <= decode_node < nodes):
            raise InputError(f"{Placement(prefill_node, decode_node)} names a node outside 0 to {nodes - 1}")
        if chunk_plan and min(chunk_plan) < 1:
            raise InputError(f"{Placement(prefill_node, decode_node, chunk_plan)} has a chunk of less than one token")
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
        """A prompt is computed on a prefill node: on to the decode node."""
        counters = self.counters
        counters.queued_prompts[seq.prefill_node] -= 1
        counters.queued_prompt_tokens[seq.prefill_node] -= seq.prompt_tokens
        # The decode node pulls the KV, and its scheduler runs between steps only.
        pull_s = self.engines[seq.decode_node].next_schedule_s()
        if pull_s > self.clock._now:
            self.clock.call_first_at(pull_s, self._pull_event, seq)
        else:
            self._pull(seq)

    def _pull_event(self, event: Event) -> None:
        seq: Sequence | None = event.value
        assert seq is not None
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
        while waiting and engine.reserve(waiting[0].prompt_tokens):
            seq = waiting.popleft()
            kv_bytes = self.topology.kv_bytes(seq.prompt_tokens)
            self.kv_bytes_moved += kv_bytes
            self.network.start(seq, seq.prefill_node, decode_node, kv_bytes)

    def _transferred(self, seq: Sequence) -> None:
        seq.kv_ready_s = self.clock._now
        self.engines[seq.prefill_node].release(seq.prompt_tokens)
        self.engines[seq.decode_node].join(seq)

    def first_token(self, seq: Sequence) -> None:
        """A first token is out (`seq.first_token_s`, now or at a step boundary about to come)."""
        weight = 1.0 / seq.ttft_slo_s
        self.waiting_requests -= 1
        self._waiting_per_s -= weight
        since = seq.arrival_s * weight
        waited = seq.first_token_s * weight - since
        self._waiting_since -= since
        self._waited += waited
        self._square_per_s2 -= weight * weight
        self._square_per_s -= weight * since
        self._square_since -= since * since
        self._waited_square += waited * waited
        node = seq.prefill_node
        if node == seq.decode_node:
            counters = self.counters
            counters.queued_prompts[node] -= 1
            counters.queued_prompt_tokens[node] -= seq.prompt_tokens
            if node >= len(self.topology.prefill_nodes):
                counters.deflected_requests[node] -= 1

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

    # ---- cost ---------------------------------------------------------------------------------------------------

    def waiting_cost(self) -> float:
        """Time waited for first tokens so far, in units of each request's TTFT SLO, summed over requests.

        Each request adds (now - arrival) / SLO until its first token is out, TTFT / SLO from then on.
        """
        for engine in self.engines:
            engine.settle()
        return self._waited + self._waiting_per_s * self.clock._now - self._waiting_since

    def tail_cost(self) -> float:
        """The same with each request's wait squared: (now - arrival)^2 / SLO^2, in the end (TTFT / SLO)^2."""
        for engine in self.engines:
            engine.settle()
        now_s = self.clock._now
        waiting = (self._square_per_s2 * now_s - 2.0 * self._square_per_s) * now_s + self._square_since
        return self._waited_square + waiting

    def tbt_cost(self) -> float:
        """Time by which gaps between tokens have exceeded their TBT SLO so far, in units of the SLO, summed."""
        return sum([engine.tbt_excess for engine in self.engines])
