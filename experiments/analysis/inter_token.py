"""Statistics over inter-token gaps, straight from the segments of a GapLog."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cluster import GapLog


class Gaps(NamedTuple):
    """Segments of one or more steps: step i lasts `first_s + i * growth_s` and is a gap of `weight` sequences.

    All arrays have shape (segments,); growth is not negative.
    """

    steps: NDArray[np.int64]
    first_s: NDArray[np.float64]
    growth_s: NDArray[np.float64]
    weight: NDArray[np.int64]

    @classmethod
    def between(cls, log: GapLog, start_s: float, end_s: float) -> "Gaps":
        """The segments of `log` that begin within [start_s, end_s] and give any gaps."""
        keep = (log.start_s >= start_s) & (log.start_s <= end_s) & (log.steps > 0) & (log.weight > 0)
        return cls(log.steps[keep], log.first_s[keep], log.growth_s[keep], log.weight[keep])

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
            low, high = (low, middle) if self.at_most(middle) >= rank else (middle, high)
        return float(high)
