"""From the choices for requests to observations of a learned policy: the one place where features are squashed.

Squashing is analytic (no running statistics), so a saved policy needs nothing but its weights: x >= 0 becomes
log(1 + x / ref) / (1 + log(1 + x / ref)), which never reaches 1. A queue ten times longer than any seen still looks
longer; a ceiling would make the policy herd.

Observations are made in batches: each decision's values once (a node's features stand in many rows, but are computed
and squashed once), all of them squashed in one pass over one array, and one gather that puts each where it belongs.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.choices import Choices, Pairing
from envs.features import (
    CHOICE_FEATURES,
    DECODE_FEATURES,
    GLOBAL_FEATURES,
    PAIR_FEATURES,
    PREFILL_FEATURES,
    REQUEST_FEATURES,
    Feature,
    packed_mask,
    packed_values,
)

LAYOUT_VERSION = 2
"""Rises whenever a feature changes its meaning; exported policies name the one they were trained on."""

Observation = dict[str, NDArray[np.float32] | NDArray[np.int8]]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PREDICTED_TTFT_COLUMN = [feature.name for feature in CHOICE_FEATURES].index("ttft_s")


class Scale:
    """How the values of some features become observations.

    Attributes:
        references: what values are divided by.
        size: how much of [0, 1] the squashed values take: 1, or half of it on either side of 0 for signed features.
        signed: positions of these.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.references = np.array([1.0 if one.kind == "flag" else one.reference for one in features])
        self.size = np.array([0.5 if one.kind == "signed" else 1.0 for one in features])
        self.signed = np.flatnonzero(self.size < 1.0)


def squash(values: FloatArray, scale: Scale) -> FloatArray:
    """Values (F,) of F features to [0, 1], monotone; the value of a set flag, inf, becomes 1."""
    # 1 - 1 / (1 + log) is log / (1 + log) and holds for inf too.
    squashed = np.abs(values)
    squashed /= scale.references
    np.log1p(squashed, out=squashed)
    squashed += 1.0
    np.divide(scale.size, squashed, out=squashed)
    np.subtract(1.0, squashed, out=squashed)
    negative = scale.signed[values[scale.signed] < 0.0]
    if negative.size:
        squashed[negative] = 1.0 - squashed[negative]
    return squashed


class Plan:
    """How the packed values of some decisions become their observations.

    Attributes:
        scale: of all values of all decisions.
        request, global_, choices: for each number of these parts of the observations, the position of its value.

    Args:
        pairings: of the decisions.
        rows: rows of each observation.
    """

    def __init__(self, pairings: tuple[Pairing, ...], rows: int) -> None:
        features: list[Feature] = []
        request, global_, choices = [], [], []
        for pairing in pairings:
            request.append(_block(features, REQUEST_FEATURES, 1)[0])
            global_.append(_block(features, GLOBAL_FEATURES, 1)[0])
            prefill = _block(features, PREFILL_FEATURES, 1 + max(pairing.prefill_index))
            decode = _block(features, DECODE_FEATURES, 1 + max(pairing.decode_index))
            pair = _block(features, PAIR_FEATURES, len(pairing.same_node))
            table = np.full((rows, len(CHOICE_FEATURES)), len(features))
            table[: len(pair)] = np.hstack([prefill[pairing.prefill_index], decode[pairing.decode_index], pair])
            choices.append(table)
            features.append(_PADDING)
        self.scale = Scale(features)
        self.request: IntArray = np.array(request)
        self.global_: IntArray = np.array(global_)
        self.choices: IntArray = np.array(choices)


_PADDING = Feature("padding", 1.0, "what rows beyond the choices are filled with")


def _block(features: list[Feature], of_one: tuple[Feature, ...], count: int) -> IntArray:
    """Append the features of `count` candidates or rows; returns the position of each, (count, len(of_one))."""
    first = len(features)
    features += of_one * count
    return np.arange(first, len(features)).reshape(count, len(of_one))


_plan = lru_cache(64)(Plan)  # few on small clusters; on large ones shortlists change, and a plan is quickly made


@lru_cache(1024)
def _plan_of_one(pairing: Pairing, rows: int) -> Plan:
    """The plan of a single decision, without the axis of decisions."""
    plan = Plan((pairing,), rows)
    plan.request, plan.global_, plan.choices = plan.request[0], plan.global_[0], plan.choices[0]
    return plan


def encode_batch(batch: Sequence[Choices], rows: int) -> Observation:
    """The observations of some decisions; see `envs.placement_env.PrefillPlacementEnv` for their tables.

    Args:
        batch: the choices of each of B decisions.
        rows: rows of each observation; beyond the choices they are zeros that may not be chosen.

    Returns:
        "request" (B, R), "global" (B, G), "choices" (B, rows, F) float32 in [0, 1], "action_mask" (B, rows) int8;
        fresh arrays.
    """
    plan = _plan(tuple([choices.pairing for choices in batch]), rows)
    mask = b"".join([packed_mask(choices, rows) for choices in batch])
    observation = _encoded(b"".join([packed_values(choices) for choices in batch]), plan, mask)
    observation["action_mask"] = observation["action_mask"].reshape(len(batch), rows)
    return observation


def encode(choices: Choices, rows: int = 0) -> Observation:
    """The observation of one decision: as `encode_batch`, without its first axis; `rows`: 0 for one per choice."""
    rows = rows or len(choices)
    return _encoded(packed_values(choices), _plan_of_one(choices.pairing, rows), packed_mask(choices, rows))


def _encoded(packed: bytes, plan: Plan, mask: bytes) -> Observation:
    scaled = squash(np.frombuffer(packed, dtype="<f8"), plan.scale).astype(np.float32)
    return {
        "request": scaled[plan.request],
        "global": scaled[plan.global_],
        "choices": scaled[plan.choices],
        "action_mask": np.frombuffer(bytearray(mask), dtype=np.int8),  # of a copy that may be written to
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
