"""Gaps between tokens, stored as segments so that every TBT statistic is exact."""

from array import array
from bisect import bisect_right
from struct import Struct

import numpy as np
from mypy_extensions import mypyc_attr
from numpy.typing import NDArray

segment = Struct("5d").pack
"""Packs (start_s, steps, first_s, growth_s, weight) for `GapLog.append`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class GapLog:
    """Inter-token gaps of all requests, one segment per run of decode steps.

    A segment is `steps` consecutive steps from `start_s` on; step i lasts `first_s + i * growth_s` and is one gap for
    each of `weight` requests. A request's first token ends no gap.
    """

    COLUMNS = 5

    def __init__(self) -> None:
        self._rows = array("d")
        self.append = self._rows.frombytes  # takes a packed `segment`, which is twice as fast as appending five floats

    def columns(self) -> NDArray[np.float64]:
        """All segments, shape (segments, 5): start_s, steps, first_s, growth_s, weight."""
        return np.frombuffer(self._rows, dtype=np.float64).reshape(-1, self.COLUMNS).copy()

    @property
    def start_s(self) -> NDArray[np.float64]:
        """Start of each segment, seconds."""
        return self.columns()[:, 0]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps in each segment."""
        return self.columns()[:, 1].astype(np.int64)

    @property
    def first_s(self) -> NDArray[np.float64]:
        """Duration of each segment's first step, seconds."""
        return self.columns()[:, 2]

    @property
    def growth_s(self) -> NDArray[np.float64]:
        """Growth of the duration from each step to the next, seconds."""
        return self.columns()[:, 3]

    @property
    def weight(self) -> NDArray[np.int64]:
        """Number of requests that have a gap in each step of a segment."""
        return self.columns()[:, 4].astype(np.int64)


@mypyc_attr(allow_interpreted_subclasses=True)
class SuffixMax:
    """The longest step since a given step, for the longest gap of a request that finishes now.

    Only values that no later value exceeds are kept (a monotone stack): a push takes O(1) amortised time and a query
    one bisection, whatever the number of steps.

    Attributes:
        ends: for each kept value, the first step after its run of steps.
        values: the kept values.
    """

    __slots__ = ("ends", "values")

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.values: list[float] = []

    def copy(self) -> "SuffixMax":
        """An independent copy."""
        twin = SuffixMax()
        twin.ends = self.ends.copy()
        twin.values = self.values.copy()
        return twin

    def push(self, end_step: int, value: float) -> None:
        """Add a run of steps that ends before `end_step` and whose longest step lasts `value` seconds."""
        values = self.values
        ends = self.ends
        while values and values[-1] <= value:
            del values[-1], ends[-1]
        values.append(value)
        ends.append(end_step)

    def since(self, step: int) -> float:
        """The longest step, seconds, among those from `step` on; there must be one."""
        return self.values[bisect_right(self.ends, step)]

    def forget_before(self, step: int) -> None:
        """Drop the values that no request which joined at `step` or later needs."""
        gone = bisect_right(self.ends, step)
        del self.ends[:gone]
        del self.values[:gone]
