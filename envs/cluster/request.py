"""A request: as a router sees it, as the cluster carries it, and as a record of what happened to it."""

from math import nan
from typing import NamedTuple


class RequestView(NamedTuple):
    """What a router knows of a request when it must place it. The output length is not in it."""

    number: int
    arrival_s: float
    prompt_tokens: int
    ttft_slo_s: float
    tbt_slo_s: float
    block_hashes: tuple[int, ...] = ()  # of its prompt, where the workload has them; see `Workload`


class RequestRecord(NamedTuple):
    """What happened to one request; times in seconds, nan where it never happened.

    TTFT = first_token_s - arrival_s = queue (prefill_start - arrival) + execution (prefill_end - prefill_start)
    + transfer (kv_ready - prefill_end, the wait for KV space on the decode node included) + decode wait
    (first_token - kv_ready). A deflected request has prefill_end_s == kv_ready_s == first_token_s. Where a prompt was
    split, execution and transfer are those of its first part, and the decode node prefills the rest in its decode wait.
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
    "block_hashes",
    "chunk_plan",
    "decode_node",
    "finish_step",
    "first_gap_step",
    "first_token_s",
    "generated_tokens",
    "hit_tokens",
    "index",
    "kv_ready_s",
    "kv_tokens",
    "last_token_s",
    "output_tokens",
    "preemptions",
    "prefill_end_s",
    "prefill_node",
    "prefill_start_s",
    "prefilled_tokens",
    "prompt_tokens",
    "pull_s",
    "queued",
    "rest_plan",
    "rest_tokens",
    "target_tokens",
    "tbt_max_s",
    "tbt_slo_s",
    "ttft_slo_s",
)


class Sequence:
    """A request inside the cluster: what it asks for, where it is placed, and its stamps so far."""

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
        self.prefill_node = -1
        self.decode_node = -1
        self.chunk_plan: tuple[int, ...] = ()
        # Prefill: tokens computed of the tokens to compute (a preempted sequence recomputes its own output too).
        self.prefilled_tokens = 0
        self.hit_tokens = 0  # of them those that came out of the node's prefix cache
        self.target_tokens = prompt_tokens
        self.rest_tokens = 0  # of a split prompt, those that the decode node is to prefill once it has the others' KV
        self.rest_plan: tuple[int, ...] = ()
        self.queued = False  # counted among the queued prompts of its prefill node
        self.pull_s = nan  # when its decode node's scheduler is to look at it
        self.kv_tokens = 0  # held on the node where it stands now, as of that engine's last committed step
        self.generated_tokens = 0
        # Decode: indices into the engine's count of steps.
        self.finish_step = 0
        self.first_gap_step = 0
        self.prefill_start_s = nan
        self.prefill_end_s = nan
        self.kv_ready_s = nan
        self.first_token_s = nan
        self.last_token_s = nan
        self.tbt_max_s = 0.0
        self.preemptions = 0

    def copy(self) -> "Sequence":
        """An independent copy."""
        twin = Sequence(
            self.index, self.arrival_s, self.prompt_tokens, self.output_tokens, self.ttft_slo_s, self.tbt_slo_s
        )
        for name in _FIELDS:
            setattr(twin, name, getattr(self, name))
        return twin

    @property
    def deflected(self) -> bool:
        """Whether the prompt is prefilled on the node that decodes it."""
        return self.prefill_node == self.decode_node

    def record(self) -> RequestRecord:
        """The record of this request as it stands."""
        return tuple.__new__(
            RequestRecord,
            (
                self.index,
                self.arrival_s,
                self.prompt_tokens,
                self.output_tokens,
                self.prefill_node,
                self.decode_node,
                self.prefill_node == self.decode_node,
                self.prefill_start_s,
                self.prefill_end_s,
                self.kv_ready_s,
                self.first_token_s,
                self.last_token_s,
                self.tbt_max_s,
                self.preemptions,
            ),
        )
