"""Files of measured step times, as written by `python -m hardware_profiles.measure`, and a `StepSource` for them."""

from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from hardware_profiles.composite import CompositeFile
from hardware_profiles.schema import Count, Positive, Section, StepReadings, Text, check_knots, read_json_file
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS
from hardware_profiles.step_sources import Kind, Step


class PrefillReadings(Section):
    """Times of steps with one prompt without context, by its tokens."""

    tokens: list[Count]
    seconds: list[Positive]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        check_knots("tokens", self.tokens, self.seconds)
        return self


class DecodeReadings(Section):
    """Times of decode steps: one row per batch size, one column per context (all sequences have the same)."""

    sequences: list[Count]
    context_tokens: list[Annotated[int, Field(gt=0, multiple_of=CONTEXT_GRAIN_TOKENS)]]
    seconds: list[list[Positive]]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        check_knots("sequences", self.sequences, self.seconds)
        if len(self.context_tokens) < 2 or sorted(set(self.context_tokens)) != self.context_tokens:
            raise ValueError("context_tokens must hold at least two, increasing")
        for batch, row in zip(self.sequences, self.seconds, strict=True):
            if len(row) != len(self.context_tokens):
                raise ValueError(
                    f"{len(self.context_tokens)} context_tokens but {len(row)} seconds at sequences = {batch}"
                )
        return self


class ReadingsFile(Section):
    """A readings file: the model, the GPU and the software, and the readings (medians)."""

    model: Text
    nature: Text
    gpu: Text
    software: Text
    software_version: Text
    tp: Count
    date: Text
    command: Text
    kv_bytes_per_token: Count
    kv_capacity_tokens: Count | None = None
    prefill: PrefillReadings
    decode: DecodeReadings
    fitted: StepReadings
    held_out: StepReadings

    @model_validator(mode="after")
    def _covers_its_batches(self) -> Self:
        steps = [*self.fitted.each(), *self.held_out.each()]
        needed = max(self.decode.sequences[-1], *(step.prompts * step.new_tokens + step.batch for step in steps))
        if self.prefill.tokens[-1] < needed:
            raise ValueError(f"prefill.tokens must reach {needed}, the tokens of the largest step")
        if max(step.batch for step in steps) > self.decode.sequences[-1]:
            raise ValueError("decode.sequences must reach the largest batch of all steps")
        kinds: tuple[Kind, ...] = ("prefill", "mixed")
        for kind in kinds:
            if not self.fitted.of_kind(kind):
                raise ValueError(f"fitted.steps holds no {kind} step")
        return self


class Readings:
    """A `StepSource` that interpolates the readings of a file linearly; it knows other whole steps only as measured."""

    def __init__(self, file: ReadingsFile) -> None:
        self.file = file
        decode = file.decode
        table = np.array(decode.seconds)
        # The value at context 0 is extrapolated from the first two contexts.
        first, second = decode.context_tokens[:2]
        start = np.clip(table[:, 0] - (table[:, 1] - table[:, 0]) * first / (second - first), 0.0, table[:, 0])
        self._decode_s = np.column_stack([start, table])
        self._contexts = [0, *decode.context_tokens]
        self._step_s = {
            step: seconds
            for group in (file.fitted, file.held_out)
            for step, seconds in zip(group.each(), group.seconds, strict=True)
        }

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt measured."""
        return self.file.prefill.tokens[-1]

    @property
    def decode_knots(self) -> tuple[list[int], list[int]]:
        """The batches and contexts measured, and context 0."""
        return self.file.decode.sequences, self._contexts

    def prefill_s(self, prompts: int, new_tokens: int, context_tokens: int) -> float:
        """Time of one prompt without context, interpolated."""
        if (prompts, context_tokens) != (1, 0):
            raise ValueError("only single prompts without context can be interpolated")
        return float(np.interp(new_tokens, self.file.prefill.tokens, self.file.prefill.seconds))

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """Time of a decode step, interpolated between batches and contexts."""
        rows = [float(np.interp(kv_tokens / batch, self._contexts, row)) for row in self._decode_s]
        return float(np.interp(batch, self.file.decode.sequences, rows))

    def decode_attention_s(self, batch: int, kv_tokens: int) -> float:
        """Time that the context adds to a decode step."""
        return self.decode_s(batch, kv_tokens) - self.decode_s(batch, 0)

    def step_s(self, step: Step) -> float:
        """Time of a whole step of the file."""
        return self._step_s[step]


def read_readings(path: Path) -> ReadingsFile | CompositeFile:
    """Read and check a readings file, measured or composed.

    Raises:
        InputError: see `schema.read_json_file`.
    """
    try:
        composed = '"F_knots_tokens"' in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        composed = False  # read_json_file raises the error
    return read_json_file(path, CompositeFile) if composed else read_json_file(path, ReadingsFile)
