"""The profile file: what its JSON holds, and the one line a faulty file is answered with."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardware_profiles.errors import InputError

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    """Part of a profile file: no unknown key, no missing key, no silent conversion."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LinkSection(_Section):
    """A link between two engines: latency_s + bytes / bandwidth_bytes_per_s, and where that was measured."""

    latency_s: NonNegative
    bandwidth_bytes_per_s: Positive
    source: Text


class LinksSection(_Section):
    """The link between hosts (NICs) and the one inside a host (NVLink)."""

    inter_node: LinkSection
    intra_node: LinkSection


class TokenTimeSection(_Section):
    """F of the step law as knots: seconds for a step of so many tokens, linear between knots."""

    tokens: list[Count]
    seconds: list[Positive]

    @model_validator(mode="after")
    def _is_a_monotone_table(self) -> Self:
        _check_knots("tokens", self.tokens, self.seconds)
        for i in range(1, len(self.tokens)):
            if self.seconds[i] < self.seconds[i - 1]:
                raise ValueError(f"seconds must not decrease, but do at tokens = {self.tokens[i]}")
        return self


class DecodeKVSection(_Section):
    """cK of the step law as knots: seconds per context token in a batch of so many sequences.

    Linear between knots, constant after the last.
    """

    sequences: list[Count]
    seconds: list[NonNegative]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        _check_knots("sequences", self.sequences, self.seconds)
        return self


def _check_knots(key: str, counts: list[int], seconds: list[float]) -> None:
    if len(counts) != len(seconds):
        raise ValueError(f"{len(counts)} {key} but {len(seconds)} seconds")
    if not counts or counts[0] != 1:
        raise ValueError(f"{key} must start at 1")
    for before, after in pairwise(counts):
        if after <= before:
            raise ValueError(f"{key} must increase, but {after} follows {before}")


class StepLawSection(_Section):
    """The step law as fitted to kernels alone; see `step_law.StepLaw` for each coefficient."""

    token_time: TokenTimeSection
    chunk_const_s: NonNegative
    chunk_context_s: NonNegative
    chunk_self_s: NonNegative
    decode_const_s: NonNegative
    decode_seq_s: NonNegative
    decode_kv: DecodeKVSection


class OverheadSection(_Section):
    """Seconds a decode step takes beyond the fitted kernels, and who says so."""

    step_s: NonNegative
    source: Text


class HeldOutSection(_Section):
    """Mean absolute relative error on random steps that the fit did not see, in percent, by kind of step.

    `mixed` is a chunk at a stated context beside decodes, `averaged` the estimator's own mixed call.
    """

    steps_of_each_kind: Count
    seed: Annotated[int, Field(ge=0)]
    drawn: Text
    prefill_mape_percent: NonNegative
    decode_mape_percent: NonNegative
    mixed_mape_percent: NonNegative
    averaged_mape_percent: NonNegative


class ProvenanceSection(_Section):
    """Where the step law and the KV sizes come from."""

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


class ProfileFile(_Section):
    """A whole profile file."""

    name: Text
    model: Text
    provenance: ProvenanceSection
    step_law: StepLawSection
    kv_bytes_per_token: Count
    kv_capacity_tokens: Count
    links: LinksSection
    decode_overhead: OverheadSection


def read_profile_file(path: Path) -> ProfileFile:
    """Read and check one profile file.

    Raises:
        InputError: not readable, not JSON, or a key that is unknown, missing or holds a wrong value; the
            line names the file and the first such key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: {reason}") from None
    try:
        return ProfileFile.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {key + ': ' if key else ''}{first['msg']}{more}") from None


def dense_tables(section: StepLawSection) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """F by tokens and cK by batch at every count from 0 to F's last knot, linear between knots.

    Nothing takes no time: both are 0 at index 0.
    """
    counts = np.arange(1, section.token_time.tokens[-1] + 1)
    token_time_s = np.interp(counts, section.token_time.tokens, section.token_time.seconds)
    decode_kv_s = np.interp(counts, section.decode_kv.sequences, section.decode_kv.seconds)
    # np.interp rounds each segment on its own; a table must not fall by a bit where two of them meet.
    token_time_s = np.maximum.accumulate(token_time_s)
    return (0.0, *token_time_s.tolist()), (0.0, *decode_kv_s.tolist())
