"""The prompt chunks of one step, and the rest of the step's budget.

`ClusterConfig.step_budget` defines the budget: only tokens ("fixed"), or also time within the TBT SLO ("slo").
"""

from collections.abc import Mapping
from math import inf

from mypy_extensions import mypyc_attr

from envs.cluster.config import ClusterConfig
from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.request import Request
from hardware_profiles import StepLaw


@mypyc_attr(allow_interpreted_subclasses=True)
class StepBudget:
    """The chunks chosen for a step so far.

    Attributes:
        bounded: whether the step's time is limited, too.
        slo_share: share of the strictest TBT SLO that a bounded step may last.
        grain_tokens: a chunk that the time limit cuts short is a multiple of this many tokens.
        chunks: pairs of a prompt and its tokens in the step.
        chunk_tokens: total tokens of the chunks.
        tokens_left: tokens that the step may still take.
        open: whether another prompt may get a chunk.

    Args:
        config: limits and step budget.
    """

    __slots__ = (
        "_limit_s",
        "_max_prompts",
        "_max_seqs",
        "_slots",
        "_step_tokens",
        "_token_budget",
        "bounded",
        "chunk_tokens",
        "chunks",
        "grain_tokens",
        "open",
        "slo_share",
        "tokens_left",
    )

    def __init__(self, config: ClusterConfig) -> None:
        self.bounded = config.step_budget == "slo"
        self.slo_share = config.slo_share
        self.grain_tokens = config.chunk_grain_tokens
        self._token_budget = config.token_budget
        self._max_seqs = config.max_seqs
        self._max_prompts = config.max_prompts
        self.chunks: list[tuple[Request, int]] = []
        self.chunk_tokens = 0
        self.tokens_left = 0
        self.open = True
        self._limit_s = inf  # time left for the chunks: F of all the step's tokens, and the attention of the chunks
        self._step_tokens = 0  # tokens of the decodes and the chunks so far; only counted in a bounded step
        self._slots = 0  # largest number of chunks

    def copy_state(self, other: "StepBudget", twins: Mapping[Request, Request]) -> None:
        """Copy the chunks of another step; `twins` maps its requests to their copies."""
        self.chunks = [(twins[request], n) for request, n in other.chunks]
        self.chunk_tokens = other.chunk_tokens

    def clear(self) -> None:
        """Remove the chunks, which are computed or lost."""
        self.chunks = []
        self.chunk_tokens = 0

    def begin(self, law: StepLaw, batch: DecodeBatch) -> None:
        """Start choosing the chunks of a step with the decodes of `batch`."""
        decoding = len(batch.members)
        self.chunks = []
        self.chunk_tokens = 0
        self.tokens_left = self._token_budget - decoding
        self._slots = min(self._max_seqs - decoding, self._max_prompts)
        self.open = self._slots > 0
        self._limit_s = inf
        if self.bounded and decoding:
            self._step_tokens = decoding
            decode_s = law.decode_s(decoding, batch.kv_tokens)
            self._limit_s = self.slo_share * batch.tbt_slo_s - law.chunk_const_s - decode_s

    def give_whole(self, request: Request) -> None:
        """Make all of a prompt's target tokens the step's only chunk."""
        self.chunk_tokens = tokens = request.target_tokens
        self.chunks = [(request, tokens)]

    def give(self, law: StepLaw, request: Request, computed_tokens: int) -> bool:
        """Add a chunk of a prompt if the step has room; returns whether it does. No chunk follows a shortened one."""
        remaining = request.target_tokens - computed_tokens
        n = remaining if remaining < self.tokens_left else self.tokens_left
        plan = request.chunk_plan
        if plan:
            if plan[0] < n:
                n = plan[0]
            self.open = False  # only decodes share the steps of a plan, which keeps their TBT safe
        elif self._limit_s < inf:
            grain = self.grain_tokens
            most = n
            n = law.largest_chunk(self._limit_s, self._step_tokens, computed_tokens, most, grain)
            if not n:
                if self.chunks:
                    self.open = False
                    return False
                n = grain if grain < most else most  # prompts always progress
            self._step_tokens += n
            self._limit_s -= law.attention_s(n, computed_tokens)
        self.tokens_left -= n
        self.chunk_tokens += n
        self.chunks.append((request, n))
        if n < remaining or self.tokens_left == 0 or len(self.chunks) == self._slots:
            self.open = False
        return True

    def steps_held(self, streams_from: int) -> int:
        """Number of steps for which the prompts allow the chosen chunks to stay the same; 0 without chunks.

        Args:
            streams_from: the node, if it streams KV and must send some after each step; otherwise -1.
        """
        chunks = self.chunks
        if len(chunks) != 1:
            return 1 if chunks else 0
        request, n = chunks[0]
        remaining = request.target_tokens - request.computed_tokens
        if n == remaining or (streams_from >= 0 and request.decode_node != streams_from):
            return 1
        plan = request.chunk_plan
        steps = remaining // n
        if len(plan) > 1:
            if n < plan[0]:
                return 1
            same = 1
            while same < steps and same < len(plan) and plan[same] == n:
                same += 1
            return same
        if self._limit_s < inf and self.tokens_left > 0:
            # The time limit cut the chunk: at the end the rest may fit as a whole although one more grain would not.
            steps = max(1, (remaining - self.grain_tokens) // n)
        return steps
