"""Counts of steps with prompt tokens that exceed the TBT SLO of the requests decoding in them, by cause."""

from mypy_extensions import mypyc_attr

from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.span import Span, steps_up_to
from hardware_profiles import StepLaw


@mypyc_attr(allow_interpreted_subclasses=True)
class SloCount:
    """The counts of one engine.

    Attributes:
        chunk_steps: steps with prompt tokens and at least one decode.
        over: chunk steps that lasted longer than the strictest TBT SLO in the batch.
        decode_alone: steps in `over` that would have lasted too long without their prompt tokens.
        minimum: other steps in `over` whose prompt tokens were the minimum by which prompts progress.

    Args:
        minimum_tokens: this minimum; 0 if there is none.
    """

    __slots__ = ("_minimum_tokens", "chunk_steps", "decode_alone", "minimum", "over")

    def __init__(self, minimum_tokens: int) -> None:
        self._minimum_tokens = minimum_tokens
        self.chunk_steps = 0
        self.over = 0
        self.decode_alone = 0
        self.minimum = 0

    def copy_state(self, other: "SloCount") -> None:
        """Copy another engine's counts."""
        self.chunk_steps = other.chunk_steps
        self.over = other.over
        self.decode_alone = other.decode_alone
        self.minimum = other.minimum

    def count(self, law: StepLaw, span: Span, batch: DecodeBatch, chunk_tokens: int) -> None:
        """Count the steps of a span whose last step exceeds the SLO; `batch` is in the state at the span's start."""
        steps = span.steps
        slo_s = batch.tbt_slo_s
        over = steps - steps_up_to(slo_s, steps, span.first_s, span.growth_s)
        decoding = len(batch.members)
        _, kv_s, _ = law.decode_line(decoding, batch.kv_tokens)
        alone_s = law.token_time_s[decoding] + law.decode_s(decoding, batch.kv_tokens)
        alone = steps - steps_up_to(slo_s, steps, alone_s, kv_s * decoding)
        self.over += over
        self.decode_alone += alone
        if chunk_tokens <= self._minimum_tokens:
            self.minimum += over - alone
