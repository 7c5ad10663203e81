"""What holding a claim of arXiv 2607.02043 against runs is: a row, and when it agrees."""

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from experiments.markdown import table
from experiments.statistics import Interval


class Claim(NamedTuple):
    """One row: what the paper says, what was found, whether they agree, and why not.

    Everything but `claim` is computed.
    """

    claim: str
    here: str
    agrees: str
    why: str


def claim_table(found: Sequence[Claim]) -> str:
    """All rows."""
    return table(["claim", "here", "agrees", "why"], found, left=4)


def _ends(interval: Interval) -> tuple[float, float]:
    """Of the interval, or twice the value where there is none."""
    return (interval.value, interval.value) if isnan(interval.low) else (interval.low, interval.high)


def within(found: Sequence[Interval], low: float, high: float) -> str:
    """How many values are in [low, high], or have an interval that overlaps it."""
    inside = [low <= interval.value <= high for interval in found]
    overlapping = [_ends(interval)[0] <= high and _ends(interval)[1] >= low for interval in found]
    if all(inside):
        return "yes"
    if all(overlapping):
        return "overlaps"
    return f"in {sum(overlapping)} of {len(found)}" if any(overlapping) else "no"


def up_to(found: Interval, *claimed: float) -> str:
    """Whether "up to `claimed`" is what was found: the interval holds one of them, or is above or below all.

    An interval that holds 0 as well says nothing.
    """
    low, high = _ends(found)
    if low <= 0 and high >= min(claimed):
        return "undecided"
    if low > max(claimed):
        return "larger here"
    return "smaller here" if high < min(claimed) else "yes"
