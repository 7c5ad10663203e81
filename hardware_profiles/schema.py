"""The format of profile files (JSON), and one-line errors for invalid ones."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS
from hardware_profiles.step_sources import Kind, Step

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Part of a file. Unknown keys, missing keys and values of another type are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LinkSection(Section):
    """A link between two engines, on which n bytes take latency_s + n / bandwidth_bytes_per_s, and its source."""

    latency_s: NonNegative
    bandwidth_bytes_per_s: Positive
    source: Text


class LinksSection(Section):
    """The link between hosts (NICs) and the one inside a host (NVLink)."""

    inter_node: LinkSection
    intra_node: LinkSection


class TokenTimeSection(Section):
    """F of the step law as knots: seconds of a step by its tokens, linear between knots."""

    tokens: list[Count]
    seconds: list[Positive]

    @model_validator(mode="after")
    def _is_a_monotone_table(self) -> Self:
        check_knots("tokens", self.tokens, self.seconds)
        for i in range(1, len(self.tokens)):
            if self.seconds[i] < self.seconds[i - 1]:
                raise ValueError(f"seconds must not decrease, but do at tokens = {self.tokens[i]}")
        return self


class DecodeConstSection(Section):
    """Time of a decode step beyond F and its attention, by batch, linear between knots.

    It is negative if F, which mixed steps need too, is longer than the rest of a decode step.
    """

    sequences: list[Count]
    seconds: list[Finite]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        check_knots("sequences", self.sequences, self.seconds)
        return self


class DecodeAttentionSection(Section):
    """Attention time of a decode step by batch (one row each) and mean context, linear between knots of both.

    The first context is 0; longer contexts than the last are extrapolated. Larger batches than the last are errors.
    """

    sequences: list[Count]
    context_tokens: list[Annotated[int, Field(ge=0, multiple_of=CONTEXT_GRAIN_TOKENS)]]
    seconds: list[list[NonNegative]]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        check_knots("sequences", self.sequences, self.seconds)
        contexts = self.context_tokens
        if len(contexts) < 2 or contexts[0] != 0:
            raise ValueError("context_tokens must start at 0 and hold at least two")
        _check_increases("context_tokens", contexts)
        for batch, row in zip(self.sequences, self.seconds, strict=True):
            if len(row) != len(contexts):
                raise ValueError(f"{len(contexts)} context_tokens but {len(row)} seconds at sequences = {batch}")
        return self


def check_knots(key: str, counts: Sequence[int], seconds: Sequence[object]) -> None:
    """Raise ValueError unless `counts` increases from 1 and has as many entries as `seconds`."""
    if len(counts) != len(seconds):
        raise ValueError(f"{len(counts)} {key} but {len(seconds)} seconds")
    if not counts or counts[0] != 1:
        raise ValueError(f"{key} must start at 1")
    _check_increases(key, counts)


def _check_increases(key: str, counts: Sequence[int]) -> None:
    for before, after in pairwise(counts):
        if after <= before:
            raise ValueError(f"{key} must increase, but {after} follows {before}")


class StepLawSection(Section):
    """The step law fitted to kernels alone; see `step_law.StepLaw` for each coefficient."""

    token_time: TokenTimeSection
    chunk_const_s: NonNegative
    chunk_context_s: NonNegative
    chunk_self_s: NonNegative
    chunk_reread_s: NonNegative
    decode_const: DecodeConstSection
    decode_attention: DecodeAttentionSection


class OverheadSection(Section):
    """Seconds that a decode step takes beyond the fitted kernels, and their source."""

    step_s: NonNegative
    source: Text


class StepReadings(Section):
    """Whole steps as columns: the fields of `step_sources.Step`, and seconds."""

    prompts: list[Whole]
    new_tokens: list[Whole]
    context_tokens: list[Whole]
    batch: list[Whole]
    decode_context_tokens: list[Whole]
    seconds: list[Positive]

    @model_validator(mode="after")
    def _are_steps(self) -> Self:
        columns = self.model_dump()
        for name, column in columns.items():
            if len(column) != len(self.seconds):
                raise ValueError(f"{len(self.seconds)} seconds but {len(column)} {name}")
        for row, step in enumerate(self.each()):
            has_chunk, has_decode = step.prompts > 0, step.batch > 0
            whole = has_chunk == (step.new_tokens > 0) and has_decode == (step.decode_context_tokens > 0)
            if not whole or not (has_chunk or has_decode):
                raise ValueError(f"row {row} is neither a prefill nor a decode nor a mixed step")
        return self

    def each(self) -> list[Step]:
        """The steps."""
        columns = (self.prompts, self.new_tokens, self.context_tokens, self.batch, self.decode_context_tokens)
        return [Step(*row) for row in zip(*columns, strict=True)]

    def of_kind(self, kind: Kind) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.each() if step.kind == kind]


def step_readings(steps: Sequence[Step], seconds: Sequence[float]) -> StepReadings:
    """Put steps and their times into a section."""
    columns = dict(zip(Step._fields[:-1], map(list, zip(*[step[:-1] for step in steps], strict=True)), strict=True))
    return StepReadings.model_validate({**columns, "seconds": [rounded(s) for s in seconds]})


def rounded(value: float) -> float:
    """Round to eight digits: short in a file, more exact than any measurement, and monotone tables stay monotone."""
    return float(f"{value:.8g}")


class SampleSection(Section):
    """Some of the held-out steps of each kind."""

    prefill: StepReadings
    decode: StepReadings
    mixed: StepReadings
    averaged: StepReadings | None = None


class HeldOutSection(Section):
    """Mean absolute relative error on steps that the fit did not see, in percent, by kind of step.

    `mixed` steps have chunks at stated contexts and decodes; `averaged` steps are aiconfigurator-core's own mixed call,
    which other sources do not have. The first steps of each kind are kept as a sample, so that the law can be checked
    without the source.
    """

    steps_of_each_kind: Count
    seed: Annotated[int, Field(ge=0)] | None = None
    drawn: Text
    prefill_mape_percent: NonNegative
    decode_mape_percent: NonNegative
    mixed_mape_percent: NonNegative
    averaged_mape_percent: NonNegative | None = None
    sample: SampleSection


class ProvenanceSection(Section):
    """The sources of the step law and the KV sizes.

    `nature` says in words what the numbers are: measured kernels, measured steps, or a composition that is neither.
    `library` is the program or file that provided the step times.
    """

    nature: Text
    library: Text
    library_version: Text
    system: Text
    backend: Text
    backend_version: Text
    tp: Count
    date: Text
    command: Text
    grid: Text
    kv_capacity: Text
    held_out: HeldOutSection


class ProfileFile(Section):
    """A profile file."""

    name: Text
    model: Text
    provenance: ProvenanceSection
    step_law: StepLawSection
    kv_bytes_per_token: Count
    kv_capacity_tokens: Count
    max_context_tokens: Count | None = None
    links: LinksSection
    decode_overhead: OverheadSection


Checked = TypeVar("Checked", bound=BaseModel)


def read_json_file(path: Path, model: type[Checked]) -> Checked:
    """Read and check a JSON file.

    Raises:
        InputError: the file is not readable or not JSON, or a key is unknown, missing or has a wrong value; the message
            names the file and the first such key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: {reason}") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {key + ': ' if key else ''}{first['msg']}{more}") from None


def write_json_file(path: Path, content: BaseModel) -> None:
    """Write a JSON file atomically, with each list of numbers on one line."""
    text = json.dumps(content.model_dump(exclude_none=True), indent=1)
    # With one line per number, the file would have thousands of lines.
    text = re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), text)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
