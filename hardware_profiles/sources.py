"""What a step law is fitted to: anything that says how long an engine step takes."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["prefill", "decode", "mixed", "averaged"]


class Step(NamedTuple):
    """One engine step: equal prompt chunks beside a decode batch of equal contexts.

    Attributes:
        prompts: number of chunks, 0 in a decode step.
        new_tokens: new tokens of each chunk.
        context_tokens: context tokens of each chunk.
        batch: decoding sequences, 0 in a prefill step.
        decode_context_tokens: context tokens of each.
        averaged: a mixed step as aiconfigurator-core's own call has it: a chunk at the mean context of the chunks of a
            prompt, which is as long as the contexts of the decodes (see `estimator`).
    """

    prompts: int
    new_tokens: int
    context_tokens: int
    batch: int
    decode_context_tokens: int
    averaged: bool = False

    @property
    def kind(self) -> Kind:
        """What the step is made of."""
        if self.averaged:
            return "averaged"
        if self.prompts:
            return "mixed" if self.batch else "prefill"
        return "decode"

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """The chunks as `StepLaw.time_s` takes them."""
        return [(self.new_tokens, self.context_tokens)] * self.prompts

    @property
    def kv_tokens(self) -> int:
        """Summed context of the decoding sequences."""
        return self.batch * self.decode_context_tokens


class StepSource(Protocol):
    """Durations of engine steps, in seconds."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the largest step known."""

    @property
    def decode_knots(self) -> tuple[Sequence[int], Sequence[int]]:
        """Batches and mean contexts between which `decode_attention_s` is (nearly) linear; contexts from 0 on."""

    def prefill_s(self, prompts: int, new_tokens: int, context_tokens: int) -> float:
        """A step of equal chunks; the fit asks only for one chunk without context."""

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """A step of `batch` decoding sequences, `kv_tokens` of context in all."""

    def decode_attention_s(self, batch: int, kv_tokens: int) -> float:
        """The part of `decode_s` that is attention."""

    def step_s(self, step: Step) -> float:
        """A whole step, one of those the law is fitted to or held against."""


def steps_s(source: StepSource, steps: Iterable[Step]) -> npt.NDArray[np.float64]:
    """Seconds of each step by the source, shape (steps,)."""
    return np.array([source.step_s(step) for step in steps])
