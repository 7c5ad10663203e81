"""A request in three forms: the router's view, the cluster's object, and the record of what happened to it."""

from enum import IntEnum
from math import inf, nan
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from envs.workload import Row


class Phase(IntEnum):
    """The phase of a request; only `envs.cluster.lifecycle` changes it.

    It corresponds to vLLM's `RequestStatus`, with separate phases before and after a KV transfer.
    """

    NEW = 0
    """Not placed yet."""
    QUEUED = 1
    """Waits on a node to be prefilled (or, after its KV was dropped, to be computed again)."""
    PREFILLING = 2
    """Holds KV on a node that computes its prompt in chunks."""
    WAITING_FOR_KV = 3
    """Is computed on its prefill node; waits for room on its decode node."""
    TRANSFERRING = 4
    """Has room on its decode node; its KV is on the way."""
    READY = 5
    """Its KV has arrived; it joins the decode batch when the scheduler runs next and has a slot."""
    DECODING = 6
    """Is in the decode batch."""
    PREEMPTED = 7
    """Was removed from the decode batch for lack of KV; waits to be computed again."""
    FINISHED = 8
    """Its last token is out."""
    REJECTED = 9
    """Was rejected at its arrival."""


NEW = Phase.NEW  # looking up a module's global is faster than looking up an enum's member

TRANSITIONS: dict[Phase, tuple[Phase, ...]] = {
    Phase.NEW: (Phase.QUEUED, Phase.REJECTED),
    Phase.QUEUED: (Phase.PREFILLING, Phase.QUEUED),
    # With KV streaming a request may have room on its decode node, and even KV there, before it is computed.
    Phase.PREFILLING: (
        *(Phase.WAITING_FOR_KV, Phase.TRANSFERRING),
        *(Phase.DECODING, Phase.FINISHED, Phase.QUEUED),
    ),
    Phase.WAITING_FOR_KV: (Phase.TRANSFERRING, Phase.QUEUED),
    # Back to waiting if its decode node is lost; the rest of a split prompt is prefilled on its decode node.
    Phase.TRANSFERRING: (Phase.READY, Phase.PREFILLING, Phase.WAITING_FOR_KV, Phase.QUEUED),
    Phase.READY: (Phase.DECODING, Phase.QUEUED),
    Phase.DECODING: (Phase.FINISHED, Phase.PREEMPTED, Phase.QUEUED),
    Phase.PREEMPTED: (Phase.PREFILLING, Phase.QUEUED),
    Phase.FINISHED: (),
    Phase.REJECTED: (),
}
"""The phases that may follow each phase. QUEUED follows nearly all: requests of a lost node are placed again."""


class RequestView(NamedTuple):
    """A request as known to a router when it places it, without the output length."""

    number: int
    arrival_s: float
    prompt_tokens: int
    ttft_slo_s: float
    tbt_slo_s: float
    block_hashes: tuple[int, ...] = ()  # of the prompt, if the workload has them; see `Workload`


def view_of(number: int, row: Row) -> RequestView:
    """The router's view of a row of a workload."""
    arrival_s, prompt_tokens, _, ttft_slo_s, tbt_slo_s, hashes = row
    # Skips NamedTuple.__new__, a Python function.
    return tuple.__new__(RequestView, (number, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes))


class RequestRecord(NamedTuple):
    """The record of one request; times are in seconds, nan if the event never happened.

    TTFT = first_token_s - arrival_s = queue (prefill_start - arrival) + execution (prefill_end - prefill_start)
    + transfer (kv_ready - prefill_end, including the wait for KV space on the decode node) + decode wait
    (first_token - kv_ready). A deflected request has prefill_end_s == kv_ready_s == first_token_s. If a prompt was
    split, execution and transfer are those of its first part, and the decode node prefills the rest during the decode
    wait. If its KV was dropped after `ClusterConfig.kv_hold_s`, the transfer lasts until it is computed again.
    The nodes of a rejected request are -1. `tbt_max_s` is the longest gap between two of its tokens, including the
    pause of a preemption; it is 0 for a single-token output.
    """

    request: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prefill_node: int
    decode_node: int
    deflected: bool
    prefill_start_s: float
    prefill_end_s: float
    kv_ready_s: float
    first_token_s: float
    last_token_s: float
    tbt_max_s: float
    preemptions: int


_FIELDS = (
    "arrival_s",
    "at_node",
    "block_hashes",
    "chunk_plan",
    "computed_tokens",
    "counted_as_queued",
    "decode_node",
    "finish_step",
    "first_gap_step",
    "first_token_s",
    "generated_tokens",
    "hold_until_s",
    "index",
    "known_hit_tokens",
    "kv_ready_s",
    "kv_tokens",
    "last_token_s",
    "moving_tokens",
    "output_tokens",
    "phase",
    "preemptions",
    "prefill_end_s",
    "prefill_node",
    "prefill_start_s",
    "prompt_tokens",
    "reserved_tokens",
    "rest_plan",
    "rest_tokens",
    "target_tokens",
    "tbt_max_s",
    "tbt_slo_s",
    "ttft_slo_s",
    "turn",
)


@mypyc_attr(allow_interpreted_subclasses=True)
class Request:
    """A request in the cluster: its lengths and SLOs, its placement, its phase, and its stamps so far.

    Attributes:
        at_node: the node that has it or its KV: the prefill node until all KV has arrived, then the decode node.
        target_tokens: tokens to prefill on `at_node`; after a preemption they include the output so far.
        computed_tokens: how many of these have their KV computed.
        rest_tokens: tokens of a split prompt that the decode node prefills once it has the KV of the first part.
        chunk_plan: chunks that the router chose for the current prefill.
        rest_plan: chunks that the router chose for the rest of a split prompt.
        known_hit_tokens: tokens of a prompt not computed yet that the router knew to be cached on the prefill node when
            it sent the prompt there.
        counted_as_queued: whether the router counts it as a queued prompt of its prefill node.
        moving_tokens: tokens that the router counts as KV on the way to the decode node, or waiting to be sent.
        turn: place in the engine's waiting queue; lower numbers go first.
        hold_until_s: time at which its computed KV is dropped unless its decode node has reserved room.
        kv_tokens: KV that it holds on `at_node`; for a member of a decode batch, at the time of joining.
        reserved_tokens: KV reserved for it on its decode node before it is there.
        finish_step, first_gap_step: steps in its decode batch's count: its last one, and the first with a gap.
    """

    __slots__ = _FIELDS

    def __init__(
        self,
        index: int,
        arrival_s: float,
        prompt_tokens: int,
        output_tokens: int,
        ttft_slo_s: float,
        tbt_slo_s: float,
        block_hashes: tuple[int, ...] = (),
    ) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.ttft_slo_s = ttft_slo_s
        self.tbt_slo_s = tbt_slo_s
        self.block_hashes = block_hashes
        self.phase = NEW
        self.prefill_node = -1
        self.decode_node = -1
        self.at_node = -1
        self.chunk_plan: tuple[int, ...] = ()
        self.target_tokens = prompt_tokens
        self.computed_tokens = 0
        self.rest_tokens = 0
        self.rest_plan: tuple[int, ...] = ()
        self.known_hit_tokens = 0
        self.counted_as_queued = False
        self.moving_tokens = 0
        self.turn = 0
        self.hold_until_s = inf
        self.kv_tokens = 0
        self.reserved_tokens = 0
        self.generated_tokens = 0
        self.finish_step = 0
        self.first_gap_step = 0
        self.prefill_start_s = nan
        self.prefill_end_s = nan
        self.kv_ready_s = nan
        self.first_token_s = nan
        self.last_token_s = nan
        self.tbt_max_s = 0.0
        self.preemptions = 0

    def copy(self) -> "Request":
        """An independent copy."""
        twin = Request(
            self.index, self.arrival_s, self.prompt_tokens, self.output_tokens, self.ttft_slo_s, self.tbt_slo_s
        )
        for name in _FIELDS:
            setattr(twin, name, getattr(self, name))
        return twin

    def misses(self, now_s: float) -> bool:
        """Whether it has missed an SLO by `now_s` according to its stamps, which lack gaps in its current batch."""
        first_token_s = self.first_token_s
        until_s = now_s if first_token_s != first_token_s else first_token_s  # nan
        return until_s - self.arrival_s > self.ttft_slo_s or self.tbt_max_s > self.tbt_slo_s

    def record(self) -> RequestRecord:
        """The record of this request so far."""
        return tuple.__new__(  # skips NamedTuple.__new__, a Python function
            RequestRecord,
            (
                self.index,
                self.arrival_s,
                self.prompt_tokens,
                self.output_tokens,
                self.prefill_node,
                self.decode_node,
                self.prefill_node == self.decode_node >= 0,
                self.prefill_start_s,
                self.prefill_end_s,
                self.kv_ready_s,
                self.first_token_s,
                self.last_token_s,
                self.tbt_max_s,
                self.preemptions,
            ),
        )


def request_of(number: int, row: Row) -> Request:
    """The cluster's request for a row of a workload."""
    arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes = row
    return Request(number, arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes)
