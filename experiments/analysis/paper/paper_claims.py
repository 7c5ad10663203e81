"""The numbers that arXiv 2607.02043 claims, when a finding agrees with them, and the cost of a chunk by a step law."""

from collections.abc import Sequence
from itertools import pairwise
from math import isnan

from experiments.analysis.bootstrap import Interval
from hardware_profiles import Profile, StepLaw

EXECUTION_SHARE = (0.02, 0.23)  # of P95 TTFT
IMPROVEMENTS = {"ttft_p95_s": (0.81,), "slo_attainment": (0.71, 0.79)}
"""The largest relative improvements; of attainment the conclusion has the first and the abstract the second."""
ROUTING_US = 1000.0
MODEL_ERROR_PERCENT = 10.0
FLAT_S, FLAT_UP_TO = 0.030, 512
STEEP_S, STEEP_AT = 0.200, 2048
SMALL_WAIT = 0.05  # a decode wait below this share of P95 TTFT counts as none; not from a paper
BATCH, CONTEXT_TOKENS = 32, 1000
DECODES = f"{BATCH} decodes of {CONTEXT_TOKENS} tokens"  # share a step with the chunk; not from a paper
CHUNKS = (64, 128, 256, 512, 1024, 2048)


def _bounds(interval: Interval) -> tuple[float, float]:
    """Both ends of the interval, or twice the value if it has none."""
    return (interval.value, interval.value) if isnan(interval.low) else (interval.low, interval.high)


def within(found: Sequence[Interval], low: float, high: float) -> str:
    """Whether all values are in [low, high], or how many intervals overlap it."""
    if all(low <= interval.value <= high for interval in found):
        return "yes"
    overlapping = sum(ends[0] <= high and ends[1] >= low for ends in map(_bounds, found))
    return {0: "no", len(found): "overlaps"}.get(overlapping, f"in {overlapping} of {len(found)}")


def up_to(found: Interval, claimed: Sequence[float]) -> str:
    """Whether the finding agrees with "up to `claimed`": the interval holds one of them, or is above or below all.

    An interval that holds 0 as well says nothing.
    """
    low, high = _bounds(found)
    if low <= 0 and high >= min(claimed):
        return "undecided"
    if low > max(claimed):
        return "larger here"
    return "smaller here" if high < min(claimed) else "yes"


def crossing(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """The x from which a curve of points (x, value) stays at most `level`, interpolated between them.

    The first x if the curve is nowhere above; None if its last point is above, or there is none.
    """
    if not curve or curve[-1][1] > level:
        return None
    above = [pair for pair in pairwise(curve) if pair[0][1] > level]
    if not above:
        return curve[0][0]
    (x, value), (next_x, next_value) = above[-1]
    return x + (next_x - x) * (value - level) / (value - next_value)


def added_s(law: StepLaw, chunk_tokens: int, batch: int = BATCH, done_tokens: int = 0) -> float:
    """Seconds that a chunk, after `done_tokens` of its prompt, adds to a step of `batch` decodes of CONTEXT_TOKENS."""
    kv_tokens = batch * CONTEXT_TOKENS
    return law.time_s([(chunk_tokens, done_tokens)], batch, kv_tokens) - law.time_s((), batch, kv_tokens)


def model_errors(profile: Profile) -> dict[str, float]:
    """Mean errors of the step law on steps that it was not fitted to, percent, by the kind of step."""
    suffix = "_mape_percent"
    held_out = profile.provenance.get("held_out") or {}
    return {name.removesuffix(suffix): error for name, error in held_out.items() if name.endswith(suffix)}
