"""Step times of a model composed from other models' measured kernels: a formula whose coefficients are in a file.

The file holds the time of everything but attention by number of tokens (F of the step law), and a coefficient for each
part of attention, in ms. A composite is NOT a measurement of its model; the file's `kind` says what it is composed of,
and every profile made from it repeats that.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from hardware_profiles.errors import InputError
from hardware_profiles.schema import Count, NonNegative, Positive, Text, check_knots
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS
from hardware_profiles.step_sources import Step
from hardware_profiles.steps import MAX_STEP_TOKENS

NOT_MEASURED = "NOT a measurement of this model"
_MAX_BATCH = 512
_MAX_CONTEXT_TOKENS = 131072


class CompositeFile(BaseModel):
    """The fields of the file that a step's time depends on; times in ms."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    model: Text
    tp: Count
    gpu: Text
    kind: Text
    F_knots_tokens: list[Count]
    F_knots_ms: list[Positive]
    lm_head_ms: NonNegative
    prefill_c_area_ms_per_tok2: NonNegative
    prefill_ctx_upproj_ms_per_ctx_token_per_chunk: NonNegative
    decode_const_ms: NonNegative
    decode_c_maxlen_ms: NonNegative
    decode_c_kv_ms_per_token: NonNegative
    decode_c_req_ms: NonNegative
    kv_bytes_per_token: Count

    @model_validator(mode="after")
    def _has_a_table(self) -> Self:
        check_knots("F_knots_tokens", self.F_knots_tokens, self.F_knots_ms)
        if len(self.F_knots_tokens) < 2:
            raise ValueError("F_knots_tokens must hold at least two")
        return self


class Composite:
    """A `StepSource` that evaluates the formula of a composite file.

    Args:
        file: the coefficients.
        anchors: (chunk tokens, seconds): time that a chunk without context adds to a decode step of `decodes`
            sequences, instead of the formula's. The time of all tokens beyond `decodes` is scaled by a factor that is
            linear in the logarithm of the chunk between anchors and constant outside them.
        decodes: decoding sequences in the steps that the anchors describe.

    Raises:
        InputError: the anchors make a larger step take less time than a smaller one.
    """

    def __init__(self, file: CompositeFile, anchors: Sequence[tuple[int, float]] = (), decodes: int = 0) -> None:
        self.file = file
        self._tokens = np.arange(MAX_STEP_TOKENS + 1)
        knots, knots_s = np.array(file.F_knots_tokens), np.array(file.F_knots_ms) / 1e3
        rate = (knots_s[-1] - knots_s[-2]) / (knots[-1] - knots[-2])
        beyond_s = rate * np.maximum(self._tokens - knots[-1], 0)
        self._tokens_s = np.interp(self._tokens, knots, knots_s) + beyond_s + file.lm_head_ms / 1e3
        if anchors:
            self._anchor(sorted(anchors), decodes)

    def _anchor(self, anchors: Sequence[tuple[int, float]], decodes: int) -> None:
        chunks = np.array([tokens for tokens, _ in anchors])
        wanted_s = np.array([seconds for _, seconds in anchors])
        wanted_s = wanted_s - [self.prefill_s(1, n, 0) - self.tokens_s(n) for n in chunks]  # attention is not scaled
        rise_s = self._tokens_s - self._tokens_s[decodes]
        factors = wanted_s / rise_s[chunks + decodes]
        chunk = np.maximum(self._tokens - decodes, 1)
        scaled_s = self._tokens_s[decodes] + rise_s * np.interp(np.log(chunk), np.log(chunks), factors)
        self._tokens_s = np.where(self._tokens > decodes, scaled_s, self._tokens_s)
        if np.any(np.diff(self._tokens_s[1:]) < 0.0):
            raise InputError("the anchors make a larger chunk take less time than a smaller one")

    @property
    def max_tokens(self) -> int:
        """The largest step of any profile; F is extrapolated from its last two knots."""
        return MAX_STEP_TOKENS

    @property
    def decode_knots(self) -> tuple[list[int], list[int]]:
        """The corners of the range, because the formula is bilinear in the batch and its mean context."""
        return [1, _MAX_BATCH], [0, CONTEXT_GRAIN_TOKENS, _MAX_CONTEXT_TOKENS]

    def tokens_s(self, tokens: int) -> float:
        """Time of everything but attention."""
        return float(self._tokens_s[tokens])

    def prefill_s(self, prompts: int, new_tokens: int, context_tokens: int) -> float:
        """Time of a step of `prompts` chunks, each of `new_tokens` tokens with `context_tokens` of context."""
        file = self.file
        area = new_tokens * context_tokens + new_tokens**2 / 2
        prompt_ms = (
            file.prefill_c_area_ms_per_tok2 * area + file.prefill_ctx_upproj_ms_per_ctx_token_per_chunk * context_tokens
        )
        return self.tokens_s(prompts * new_tokens) + prompts * prompt_ms / 1e3

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """Time of a decode step of sequences with equal contexts."""
        return self.tokens_s(batch) + self.decode_attention_s(batch, kv_tokens)

    def decode_attention_s(self, batch: int, kv_tokens: int) -> float:
        """The attention part of `decode_s`."""
        file = self.file
        longest_ms = file.decode_c_maxlen_ms * kv_tokens / batch
        each_ms = file.decode_c_req_ms * batch + file.decode_c_kv_ms_per_token * kv_tokens
        return (file.decode_const_ms + longest_ms + each_ms) / 1e3

    def step_s(self, step: Step) -> float:
        """Time of a step of any kind: prompts and decodes share the passes over tokens; attention times add up."""
        tokens = step.prompts * step.new_tokens
        seconds = self.prefill_s(*step[:3]) - self.tokens_s(tokens) if tokens else 0.0
        if step.batch:
            seconds += self.decode_attention_s(step.batch, step.kv_tokens)
        return seconds + self.tokens_s(tokens + step.batch)
