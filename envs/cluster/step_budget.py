"""The prompt chunks of one step, and what is left of the step's budget.

`ClusterConfig.step_budget` says what the budget is: tokens alone ("fixed"), or also time within the TBT SLO ("slo").
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
        bounded: the step's time is bounded too.
        slo_share: share of the strictest TBT SLO that a bounded step may last.
        grain_tokens: a chunk that the bound cuts is a multiple of this.
        chunks: each a prompt and its tokens.
        chunk_tokens: their sum.
        tokens_left: tokens that the step may still take.
        open: a prompt may still get a chunk.

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
        self._limit_s = inf  # time left for the chunks: F of all the step's tokens, and their attention
        self._step_tokens = 0  # of the decodes and the chunks so far; only counted in a bounded step
        self._slots = 0  # chunks at most

    def copy_state(self, other: "StepBudget", twins: Mapping[Request, Request]) -> None:
        """Take over the chunks of another step, with the requests that `twins` gives for its own."""
        self.chunks = [(twins[request], n) for request, n in other.chunks]
        self.chunk_tokens = other.chunk_tokens

    def clear(self) -> None:
        """Drop the chunks: they are computed, or lost."""
        self.chunks = []
        self.chunk_tokens = 0

    def begin(self, law: StepLaw, batch: DecodeBatch) -> None:
        """Begin to choose the chunks of a step next to the decodes of `batch`."""
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
        """Make a prompt's whole target the step's only chunk."""
        self.chunk_tokens = tokens = request.target_tokens
        self.chunks = [(request, tokens)]

    def give(self, law: StepLaw, request: Request, computed_tokens: int) -> bool:
        """Give a prompt its chunk of the step, if the step still has one; no prompt follows one that is cut short."""
        remaining = request.target_tokens - computed_tokens
        n = remaining if remaining < self.tokens_left else self.tokens_left
        plan = request.chunk_plan
        if plan:
            if plan[0] < n:
                n = plan[0]
            self.open = False  # a plan shares its steps with decodes only: it keeps their TBT safe
        elif self._limit_s < inf:
            grain = self.grain_tokens
            most = n
            n = law.largest_chunk(self._limit_s, self._step_tokens, computed_tokens, most, grain)
            if not n:
                if self.chunks:
                    self.open = False
                    return False
                n = grain if grain < most else most  # a prompt always progresses
            self._step_tokens += n
            self._limit_s -= law.attention_s(n, computed_tokens)
        self.tokens_left -= n
        self.chunk_tokens += n
        self.chunks.append((request, n))
        if n < remaining or self.tokens_left == 0 or len(self.chunks) == self._slots:
            self.open = False
        return True

    def steps_held(self, streams_from: int) -> int:
        """For how many steps the chosen chunks stay as they are, as far as the prompts tell; 0 without chunks.

        Args:
            streams_from: the node, if KV is streamed: each step's end then has some to send; else -1.
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
            # Cut by the bound: the rest at the end may fit whole although a grain more would not.
            steps = max(1, (remaining - self.grain_tokens) // n)
        return steps
