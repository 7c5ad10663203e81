"""From the choices for a request to the observation of a learned policy: the one place where features are squashed.

Squashing is analytic (no running statistics), so a saved policy needs nothing but its weights: x >= 0 becomes
log(1 + x / ref) / (1 + log(1 + x / ref)), which never reaches 1. A queue ten times longer than any seen still looks
longer; a ceiling would make the policy herd.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.choices import Choices
from envs.features import (
    CHOICE_FEATURES,
    DECODE_FEATURES,
    GLOBAL_FEATURES,
    PAIR_FEATURES,
    PREFILL_FEATURES,
    REQUEST_FEATURES,
    Fading,
    Feature,
)

LAYOUT_VERSION = 2
"""Rises whenever a feature changes its meaning; exported policies name the one they were trained on."""

Observation = dict[str, NDArray[np.float32] | NDArray[np.int8]]

FloatArray = NDArray[np.float64]

PREDICTED_TTFT_COLUMN = [feature.name for feature in CHOICE_FEATURES].index("ttft_s")


def squash(values: FloatArray, refs: FloatArray) -> FloatArray:
    """Values of 0 and more to [0, 1), monotone; `refs` broadcast against the last axis."""
    logs = np.log1p(values / refs)
    squashed: FloatArray = logs / (1.0 + logs)
    return squashed


class Scale:
    """How the values of some features become observations.

    Args:
        features: in order.
    """

    def __init__(self, features: Sequence[Feature[Any]]) -> None:
        self.refs = np.array([1.0 if one.kind == "flag" else one.reference for one in features])
        self.flags = np.array([i for i, one in enumerate(features) if one.kind == "flag"], dtype=np.int64)
        self.signed = np.array([i for i, one in enumerate(features) if one.kind == "signed"], dtype=np.int64)

    def __call__(self, values: FloatArray) -> FloatArray:
        """Values (..., F) of the features to [0, 1]."""
        if not self.signed.size:
            scaled = squash(values, self.refs)
        else:
            scaled = squash(np.abs(values), self.refs)
            signed = values[..., self.signed]
            scaled[..., self.signed] = 0.5 + 0.5 * np.where(signed < 0.0, -1.0, 1.0) * scaled[..., self.signed]
        if self.flags.size:
            scaled[..., self.flags] = values[..., self.flags]
        return scaled


_REQUEST, _GLOBAL = Scale(REQUEST_FEATURES), Scale(GLOBAL_FEATURES)
_PREFILL, _DECODE, _PAIR = Scale(PREFILL_FEATURES), Scale(DECODE_FEATURES), Scale(PAIR_FEATURES)
_FIRST_DECODE = len(PREFILL_FEATURES)
_FIRST_PAIR = _FIRST_DECODE + len(DECODE_FEATURES)


def encode(choices: Choices, rows: int = 0) -> Observation:
    """The observation of one decision; see `envs.placement_env.PrefillPlacementEnv` for its tables.

    Args:
        choices: for the request.
        rows: rows of the observation; beyond the choices they are zeros that may not be chosen. 0: one per choice.

    Returns:
        "request" (R,), "global" (G,), "choices" (rows, F) float32 in [0, 1], "action_mask" (rows,) int8; all fresh
        arrays.
    """
    count = len(choices)
    table = np.zeros((rows or count, len(CHOICE_FEATURES)), dtype=np.float32)
    prefill = np.array([[one.value(node) for one in PREFILL_FEATURES] for node in choices.prefill], dtype=np.float64)
    decode = np.array([[one.value(node) for one in DECODE_FEATURES] for node in choices.decode], dtype=np.float64)
    pair = np.array([one.value(choices) for one in PAIR_FEATURES], dtype=np.float64).T
    table[:count, :_FIRST_DECODE] = _PREFILL(prefill)[choices.prefill_index]
    table[:count, _FIRST_DECODE:_FIRST_PAIR] = _DECODE(decode)[choices.decode_index]
    table[:count, _FIRST_PAIR:] = _PAIR(pair)
    mask = np.zeros(rows or count, dtype=np.int8)
    mask[:count] = choices.feasible
    fading = Fading.of(choices)
    return {
        "request": _REQUEST(np.array([one.value(choices) for one in REQUEST_FEATURES])).astype(np.float32),
        "global": _GLOBAL(np.array([one.value(fading) for one in GLOBAL_FEATURES])).astype(np.float32),
        "choices": table,
        "action_mask": mask,
    }


def observation_space(rows: int) -> spaces.Dict:
    """The space of `encode`'s observations with so many rows."""
    return spaces.Dict(
        {
            "request": spaces.Box(0.0, 1.0, (len(REQUEST_FEATURES),), np.float32),
            "global": spaces.Box(0.0, 1.0, (len(GLOBAL_FEATURES),), np.float32),
            "choices": spaces.Box(0.0, 1.0, (rows, len(CHOICE_FEATURES)), np.float32),
            "action_mask": spaces.Box(0, 1, (rows,), np.int8),
        }
    )
