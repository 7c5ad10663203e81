"""The life cycle of requests: every change of phase, and the counts that depend on it.

Engines and KV transfers decide when a phase changes and call the methods here. `envs.cluster.request.TRANSITIONS` lists
the allowed changes.
"""

from collections.abc import Callable, Mapping
from math import inf, isnan, nan

from mypy_extensions import mypyc_attr

from envs.cluster.first_token_wait import FirstTokenWait
from envs.cluster.placement import Placement
from envs.cluster.request import Phase, Request, RequestRecord
from envs.cluster.router_counters import RouterCounters

# Looking up a module's global is faster than looking up an enum's member.
QUEUED = Phase.QUEUED
PREFILLING = Phase.PREFILLING
WAITING_FOR_KV = Phase.WAITING_FOR_KV
TRANSFERRING = Phase.TRANSFERRING
READY = Phase.READY
DECODING = Phase.DECODING
PREEMPTED = Phase.PREEMPTED
FINISHED = Phase.FINISHED
REJECTED = Phase.REJECTED


@mypyc_attr(allow_interpreted_subclasses=True)
class Lifecycle:
    """The requests of a cluster and their counts.

    Attributes:
        in_flight: submitted and unfinished requests by index.
        counters: the router's counts.
        first_token_wait: the requests that wait for their first token, and the cost of waiting.
        displaced: number of placements repeated because a node was lost.
        kv_expired: number of requests whose computed KV was dropped because their decode node had no room in time.
        misses: number of finished and rejected requests that missed an SLO.

    Args:
        nodes: number of nodes.
        on_record: called with the record of each request that finishes or is rejected, in order of these events.
    """

    __slots__ = ("_on_record", "counters", "displaced", "first_token_wait", "in_flight", "kv_expired", "misses")

    def __init__(self, nodes: int, on_record: Callable[[RequestRecord], object]) -> None:
        self.in_flight: dict[int, Request] = {}
        self.counters = RouterCounters(nodes)
        self.first_token_wait = FirstTokenWait()
        self.displaced = 0
        self.kv_expired = 0
        self.misses = 0
        self._on_record = on_record

    def copy_state(self, other: "Lifecycle", twins: Mapping[Request, Request]) -> None:
        """Copy another cluster's counts; `twins` maps its requests to their copies."""
        self.in_flight = {request.index: request for request in twins.values()}
        self.counters.copy_state(other.counters)
        self.first_token_wait.copy_state(other.first_token_wait, twins)
        self.displaced = other.displaced
        self.kv_expired = other.kv_expired
        self.misses = other.misses

    def misses_by(self, now_s: float) -> int:
        """Number of requests that have missed an SLO according to their stamps (`Request.misses`)."""
        return self.misses + sum([1 for request in self.in_flight.values() if request.misses(now_s)])

    # ---- placing --------------------------------------------------------------------------------------------------

    def submitted(self, request: Request, placement: Placement) -> None:
        """Handle a request that arrives and is placed."""
        self.counters.arrived(request)
        self.first_token_wait.requests[request] = None
        self.in_flight[request.index] = request
        self.placed(request, placement)

    def rejected(self, request: Request) -> None:
        """Handle a request that arrives and is rejected."""
        request.phase = REJECTED
        self.misses += 1
        self._on_record(request.record())

    def placed(self, request: Request, placement: Placement) -> None:
        """Send a request to its prefill node."""
        prefill_node, decode_node, chunk_plan, split_tokens = placement
        request.phase = QUEUED
        request.prefill_node = request.at_node = prefill_node
        request.decode_node = decode_node
        if split_tokens:
            request.chunk_plan = ()
            request.rest_plan = chunk_plan
            request.rest_tokens = request.target_tokens - split_tokens
            request.target_tokens = split_tokens
        else:
            request.chunk_plan = chunk_plan
        self.counters.placed(request)

    def displace(self, request: Request) -> None:
        """Reset a request that was on a lost node; it must be placed again and keeps the tokens generated so far."""
        self.counters.taken_back(request)
        self._anew(request)
        request.rest_tokens = request.kv_tokens = request.reserved_tokens = 0
        request.hold_until_s = inf
        if isnan(request.first_token_s):
            request.prefill_start_s = request.prefill_end_s = request.kv_ready_s = nan
        self.displaced += 1

    # ---- prefill --------------------------------------------------------------------------------------------------

    def began(self, request: Request) -> None:
        """Mark a prompt (or the rest of a split prompt) whose first chunk is about to be computed."""
        request.phase = PREFILLING

    def computed(self, request: Request, now_s: float) -> None:
        """Handle a prompt that is computed on a node which does not decode it."""
        if request.prefill_end_s != request.prefill_end_s:  # nan; three times as fast as isnan
            request.prefill_end_s = now_s
        request.phase = TRANSFERRING if request.reserved_tokens else WAITING_FOR_KV
        self.counters.prefilled(request)
        self.counters.kv_leaves(request)

    def computed_here(self, request: Request, now_s: float) -> None:
        """Handle a prompt that is computed on its decode node."""
        if isnan(request.prefill_end_s):
            request.prefill_end_s = now_s
        if isnan(request.kv_ready_s):
            request.kv_ready_s = now_s
        self.counters.prefilled(request)
        if request.rest_tokens:
            self.counters.rest_done(request)
            request.rest_tokens = 0

    # ---- KV transfer ----------------------------------------------------------------------------------------------

    def reserved(self, request: Request, tokens: int) -> None:
        """Record that the decode node has reserved room; with streaming, later chunks may still be computed."""
        request.reserved_tokens = tokens
        if request.phase is WAITING_FOR_KV:
            request.phase = TRANSFERRING

    def unreserved(self, request: Request) -> None:
        """Drop the reservation on a lost decode node; the request asks another node."""
        request.reserved_tokens = 0
        if request.phase is TRANSFERRING:
            request.phase = WAITING_FOR_KV

    def arrived(self, request: Request, now_s: float) -> None:
        """Handle the arrival of all KV on the decode node, which then prefills the rest of a split prompt."""
        if request.kv_ready_s != request.kv_ready_s:
            request.kv_ready_s = now_s
        self.counters.kv_moved(request)
        request.at_node = request.decode_node
        request.reserved_tokens = 0
        if request.rest_tokens:
            request.phase = PREFILLING
            request.computed_tokens = request.target_tokens
            request.target_tokens += request.rest_tokens
            request.chunk_plan = request.rest_plan
        else:
            request.phase = READY
        request.kv_tokens = request.target_tokens

    def expired(self, request: Request) -> None:
        """Drop the KV of a request whose decode node had no room in time; that node computes the prompt itself."""
        request.phase = QUEUED
        self.counters.kv_moved(request)
        request.at_node = request.decode_node
        if request.rest_tokens:
            self.counters.rest_done(request)
            request.rest_tokens = 0
        self._anew(request)
        request.kv_tokens = 0
        self.kv_expired += 1

    def _anew(self, request: Request) -> None:
        """Let the prompt and the output so far be computed again, without a chunk plan."""
        request.target_tokens = request.prompt_tokens + request.generated_tokens
        request.computed_tokens = 0
        request.chunk_plan = ()

    # ---- decode ---------------------------------------------------------------------------------------------------

    def joined(self, request: Request) -> None:
        """Mark a request that enters the decode batch."""
        request.phase = DECODING

    def preempted(self, request: Request) -> None:
        """Handle a request that is preempted: removed from the decode batch with its KV freed."""
        request.phase = PREEMPTED
        request.preemptions += 1
        self._anew(request)

    def finished(self, request: Request, now_s: float) -> None:
        """Handle a request whose last token is out."""
        request.phase = FINISHED
        request.generated_tokens = request.output_tokens
        request.last_token_s = now_s
        missed = request.misses(now_s)
        self.misses += missed
        self.counters.finished(request, missed)
        del self.in_flight[request.index]
        self._on_record(request.record())

    # ---- a lost decode node ---------------------------------------------------------------------------------------

    def moves(self, request: Request, decode_node: int) -> None:
        """Change the decode node of a request."""
        self.counters.moved(request, decode_node)
        request.decode_node = decode_node
