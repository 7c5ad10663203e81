"""A request: as a router sees it, as the cluster carries it, and as a record of what happened to it."""

from enum import IntEnum
from math import inf, nan
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from envs.workload import Row


class Phase(IntEnum):
    """Where a request is in its life; `envs.cluster.lifecycle` makes every change.

    vLLM's `RequestStatus`, with the phases before and after a KV transfer as separate ones.
    """

    NEW = 0
    """Not placed yet."""
    QUEUED = 1
    """Waits on a node to be prefilled (or, after its KV was dropped, to be computed again)."""
    PREFILLING = 2
    """Holds KV on a node that computes its prompt chunk by chunk."""
    WAITING_FOR_KV = 3
    """Computed on its prefill node; waits for room on its decode node."""
    TRANSFERRING = 4
    """Has room on its decode node; its KV is on the way."""
    READY = 5
    """Its KV has arrived; joins the decode batch at the scheduler's next chance."""
    DECODING = 6
    """In the decode batch."""
    PREEMPTED = 7
    """Thrown out of the decode batch for lack of KV; waits to be computed again."""
    FINISHED = 8
    """Its last token is out."""
    REJECTED = 9
    """Turned away at its arrival."""


NEW = Phase.NEW  # a module's global is found faster than an enum's member

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
"""The phases that may follow each phase. QUEUED follows nearly all of them: a lost node's requests are placed again."""


class RequestView(NamedTuple):
    """What a router knows of a request when it must place it. The output length is not in it."""

    number: int
    arrival_s: float
    prompt_tokens: int
    ttft_slo_s: float
    tbt_slo_s: float
    block_hashes: tuple[int, ...] = ()  # of its prompt, if the workload has them; see `Workload`


def view_of(number: int, row: Row) -> RequestView:
    """A row of a workload as a router sees it."""
    arrival_s, prompt_tokens, _, ttft_slo_s, tbt_slo_s, hashes = row
    # Skips the named tuple's own constructor, a function in Python.
    return tuple.__new__(RequestView, (number, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes))


class RequestRecord(NamedTuple):
    """What happened to one request; times in seconds, nan for what never happened.

    TTFT = first_token_s - arrival_s = queue (prefill_start - arrival) + execution (prefill_end - prefill_start)
    + transfer (kv_ready - prefill_end, the wait for KV space on the decode node included) + decode wait
    (first_token - kv_ready). A deflected request has prefill_end_s == kv_ready_s == first_token_s. If a prompt was
    split, execution and transfer are those of its first part, and the decode node prefills the rest in its decode wait.
    If its KV was dropped after `ClusterConfig.kv_hold_s`, the transfer lasts until it is computed again.
    A rejected request has nodes of -1.
    `tbt_max_s` is the longest gap between two of its tokens, 0 for a single-token output, and counts a preemption's
    pause.
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
    """A request inside the cluster: what it asks for, where it is placed, its phase, and its stamps so far.

    Attributes:
        at_node: the node that has it or its KV: the prefill node until all KV has arrived, then the decode node.
        target_tokens: tokens to prefill on `at_node`; after a preemption the output so far is among them.
        computed_tokens: of them, those whose KV is computed.
        rest_tokens: of a split prompt, what the decode node is to prefill once it has the KV of the first part.
        chunk_plan: chunks that the router chose for the present prefill; `rest_plan`: for that rest.
        known_hit_tokens: of a prompt that is not computed yet, the tokens that the router knew to be cached on its
            prefill node when it sent it there.
        counted_as_queued: the router counts it among the queued prompts of its prefill node.
        moving_tokens: tokens that the router counts as KV on its way, or waiting, to the decode node.
        turn: place in its engine's waiting queue; the lesser goes first.
        hold_until_s: when its computed KV is dropped unless its decode node has made room.
        kv_tokens: KV it holds on `at_node`, for a member of a decode batch as of its joining.
        reserved_tokens: KV reserved for it on its decode node while it is not there yet.
        finish_step, first_gap_step: indices into its decode batch's count of steps.
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
        """Whether it has missed an SLO by `now_s`, as far as its stamps tell; they do not tell of its present batch."""
        first_token_s = self.first_token_s
        until_s = now_s if first_token_s != first_token_s else first_token_s  # nan
        return until_s - self.arrival_s > self.ttft_slo_s or self.tbt_max_s > self.tbt_slo_s

    def record(self) -> RequestRecord:
        """The record of this request as it stands."""
        return tuple.__new__(  # skips the named tuple's own constructor, a function in Python
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
    """A row of a workload as the cluster carries it."""
    arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes = row
    return Request(number, arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes)
