"""Statistics over inter-token gaps, straight from the segments of a GapLog."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.cluster import GapLog


@dataclass(frozen=True)
class Gaps:
    """Segments of gaps: step i of a segment lasts `first_s + i * growth_s` and counts `weight` times.

    Attributes:
        steps: steps of each segment, shape (segments,), at least 1.
        first_s: seconds of each segment's first step.
        growth_s: seconds that each step lasts longer than the one before, not negative.
        weight: sequences that each step gives a gap to.
    """

    steps: NDArray[np.int64]
    first_s: NDArray[np.float64]
    growth_s: NDArray[np.float64]
    weight: NDArray[np.int64]

    @classmethod
    def between(cls, log: GapLog, start_s: float, end_s: float) -> "Gaps":
        """The segments of `log` that begin within [start_s, end_s] and give any gaps."""
        begins_s, steps, weight = log.start_s, log.steps, log.weight
        keep = (begins_s >= start_s) & (begins_s <= end_s) & (steps > 0) & (weight > 0)
        return cls(steps[keep], log.first_s[keep], log.growth_s[keep], weight[keep])

    @property
    def total(self) -> int:
        """How many gaps there are."""
        return int(self.steps @ self.weight)

    def mean_s(self) -> float:
        """Mean gap in seconds; nan without gaps."""
        if not self.total:
            return np.nan
        segment_s = self.steps * self.first_s + self.growth_s * (self.steps * (self.steps - 1) / 2)
        return float(segment_s @ self.weight) / self.total

    def at_most(self, gap_s: float) -> int:
        """How many gaps last at most `gap_s` seconds."""
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.floor((gap_s - self.first_s) / self.growth_s) + 1
        flat = np.where(gap_s >= self.first_s, self.steps, 0)
        count = np.where(self.growth_s > 0, np.clip(below, 0, self.steps), flat)
        return int(count @ self.weight)

    def quantile_s(self, q: float) -> float:
        """The smallest gap that at least a share `q` of all gaps do not exceed, seconds; nan without gaps.

        Exact to floating-point rounding: the count of gaps up to a value is closed, so the value is found by
        bisection and no segment is ever expanded.
        """
        if not self.total:
            return np.nan
        # Rounding must not push the rank past the last gap, nor q = 0 before the first.
        rank = min(max(np.ceil(q * self.total - 1e-9), 1), self.total)
        low = np.nextafter(self.first_s.min(), -np.inf)
        high = (self.first_s + (self.steps - 1) * self.growth_s).max()
        while low < (middle := (low + high) / 2) < high:
            if self.at_most(middle) >= rank:
                high = middle
            else:
                low = middle
        return float(high)
