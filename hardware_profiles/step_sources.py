"""Sources of step times, which a step law is fitted to."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["prefill", "decode", "mixed", "averaged"]


class Step(NamedTuple):
    """One engine step: equal prompt chunks, and a decode batch of equal contexts.

    Attributes:
        prompts: number of chunks, 0 in a decode step.
        new_tokens: new tokens of each chunk.
        context_tokens: context tokens of each chunk.
        batch: decoding sequences, 0 in a prefill step.
        decode_context_tokens: context tokens of each decoding sequence.
        averaged: the step is timed by aiconfigurator-core's own mixed call: one chunk at the mean context of a prompt's
            chunks, with the prompt as long as the contexts of the decodes (see `estimator`).
    """

    prompts: int
    new_tokens: int
    context_tokens: int
    batch: int
    decode_context_tokens: int
    averaged: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of the step."""
        if self.averaged:
            return "averaged"
        if self.prompts:
            return "mixed" if self.batch else "prefill"
        return "decode"

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """The chunks in the form of `StepLaw.time_s`."""
        return [(self.new_tokens, self.context_tokens)] * self.prompts

    @property
    def kv_tokens(self) -> int:
        """Context tokens of all decoding sequences."""
        return self.batch * self.decode_context_tokens


class StepSource(Protocol):
    """Something that knows the times of engine steps, in seconds."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the largest step that the source knows."""

    @property
    def decode_knots(self) -> tuple[Sequence[int], Sequence[int]]:
        """Batches and mean contexts between which `decode_attention_s` is (nearly) linear; contexts start at 0."""

    def prefill_s(self, prompts: int, new_tokens: int, context_tokens: int) -> float:
        """Time of a step of equal chunks; the fit needs only single chunks without context."""

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """Time of a step of `batch` decoding sequences with `kv_tokens` tokens of context in total."""

    def decode_attention_s(self, batch: int, kv_tokens: int) -> float:
        """The part of `decode_s` that is attention."""

    def step_s(self, step: Step) -> float:
        """Time of a whole step that the law is fitted to or tested on."""


def steps_s(source: StepSource, steps: Iterable[Step]) -> npt.NDArray[np.float64]:
    """Seconds of each step by the source, shape (steps,)."""
    return np.array([source.step_s(step) for step in steps])
