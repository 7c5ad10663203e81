"""Short searches for the knee of `static`."""

from collections.abc import Sequence

import pytest

from experiments.runs import saturation


def shorten_knees(
    patch: pytest.MonkeyPatch, requests: int, span_s: float = 0.0, seeds: Sequence[int] = saturation.KNEE_SEEDS
) -> None:
    """Find knees with runs of so many requests, or as many more as arrive in a span, and with these seeds."""
    patch.setattr(saturation, "KNEE_REQUESTS", requests)
    patch.setattr(saturation, "KNEE_SPAN_S", span_s)
    patch.setattr(saturation, "KNEE_SEEDS", tuple(seeds))
