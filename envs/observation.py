"""Observations for learned policies, made from the choices for requests; features are squashed here.

Squashing has no running statistics, so a saved policy needs only its weights: x >= 0 becomes
log(1 + x / ref) / (1 + log(1 + x / ref)), which never reaches 1. A queue ten times longer than any in training still
looks longer; with a ceiling, the policy would send all requests to one of several saturated nodes.

Observations are encoded in batches. The features of a node appear in many rows but are computed and squashed once: one
pass squashes the values of all decisions, and one gather copies each value to its places.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.choices import Choices, Pairing
from envs.cluster import RequestView, RouterView
from envs.features import (
    CHOICE_FEATURES,
    DECODE_FEATURES,
    GLOBAL_FEATURES,
    PAIR_FEATURES,
    PREFILL_FEATURES,
    REQUEST_FEATURES,
    TRAFFIC_FEATURES,
    Feature,
    packed_mask,
    packed_traffic,
    packed_values,
)

LAYOUT_VERSION = 4
"""Increases when a feature changes its meaning; exported policies state the version they were trained with."""

Observation = dict[str, NDArray[np.float32] | NDArray[np.int8]]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PREDICTED_TTFT_COLUMN = [feature.name for feature in CHOICE_FEATURES].index("ttft_s")


class Scale:
    """The scaling of the values of some features.

    Attributes:
        references: divisors of the values.
        size: size of the range of squashed values: 1, or 0.5 on each side of 0.5 for signed features.
        signed: positions of the signed features.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.references = np.array([1.0 if one.kind == "flag" else one.reference for one in features])
        self.size = np.array([0.5 if one.kind == "signed" else 1.0 for one in features])
        self.signed = np.flatnonzero(self.size < 1.0)


def squash(values: FloatArray, scale: Scale) -> FloatArray:
    """Map values (F,) of F features to [0, 1], monotonically; the value of a set flag, inf, becomes 1."""
    # 1 - 1 / (1 + log) equals log / (1 + log) and is right for inf, too.
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
    """The mapping from the packed values of some decisions to their observations.

    Attributes:
        scale: scaling of all values of all decisions.
        request, global_, choices: for each number in these parts of the observations, the position of its value.

    Args:
        pairings: pairings of the decisions.
        rows: number of rows of each observation.
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


_PADDING = Feature("padding", 1.0, "fills rows beyond the choices")


def _block(features: list[Feature], of_one: tuple[Feature, ...], count: int) -> IntArray:
    """Append the features of `count` candidates or rows and return their positions, shape (count, len(of_one))."""
    first = len(features)
    features += of_one * count
    return np.arange(first, len(features)).reshape(count, len(of_one))


_plan = lru_cache(64)(
    Plan
)  # small clusters need few plans; large ones more, because shortlists change, but making a plan is quick


@lru_cache(1024)
def _plan_of_one(pairing: Pairing, rows: int) -> Plan:
    """The plan of a single decision, without the axis of decisions."""
    plan = Plan((pairing,), rows)
    plan.request, plan.global_, plan.choices = plan.request[0], plan.global_[0], plan.choices[0]
    return plan


def encode_batch(batch: Sequence[Choices], rows: int) -> Observation:
    """Encode the observations of some decisions; see `envs.placement_env.PrefillPlacementEnv` for their tables.

    Args:
        batch: the choices of each of B decisions.
        rows: number of rows of each observation; rows beyond the choices are zeros and masked.

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
    """Encode the observation of one decision: `encode_batch` without its first axis; `rows` 0: one per choice."""
    rows = rows or len(choices)
    return _encoded(packed_values(choices), _plan_of_one(choices.pairing, rows), packed_mask(choices, rows))


_TRAFFIC = Scale(TRAFFIC_FEATURES)


def encode_traffic(request: RequestView, view: RouterView) -> NDArray[np.float32]:
    """TRAFFIC_FEATURES of a decision, (len(TRAFFIC_FEATURES),), as in an observation, but without the choices."""
    return squash(np.frombuffer(packed_traffic(request, view), dtype="<f8"), _TRAFFIC).astype(np.float32)


def _encoded(packed: bytes, plan: Plan, mask: bytes) -> Observation:
    scaled = squash(np.frombuffer(packed, dtype="<f8"), plan.scale).astype(np.float32)
    return {
        "request": scaled.take(plan.request),
        "global": scaled.take(plan.global_),
        "choices": scaled.take(plan.choices),
        "action_mask": np.frombuffer(bytearray(mask), dtype=np.int8),  # a writable copy
    }


def observation_space(rows: int) -> spaces.Dict:
    """The space of `encode`'s observations with this number of rows."""
    return spaces.Dict(
        {
            "request": spaces.Box(0.0, 1.0, (len(REQUEST_FEATURES),), np.float32),
            "global": spaces.Box(0.0, 1.0, (len(GLOBAL_FEATURES),), np.float32),
            "choices": spaces.Box(0.0, 1.0, (rows, len(CHOICE_FEATURES)), np.float32),
            "action_mask": spaces.Box(0, 1, (rows,), np.int8),
        }
    )
