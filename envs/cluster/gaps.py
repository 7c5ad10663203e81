"""Gaps between tokens, kept as segments so that every TBT statistic stays exact."""

from array import array
from bisect import bisect_right
from struct import Struct

import numpy as np
from mypy_extensions import mypyc_attr
from numpy.typing import NDArray

segment = Struct("5d").pack
"""(start_s, steps, first_s, growth_s, weight) as `GapLog.append` takes them."""


@mypyc_attr(allow_interpreted_subclasses=True)
class GapLog:
    """Inter-token gaps of all sequences, one segment for each run of decode steps.

    A segment is `steps` consecutive steps from `start_s`; step i lasts `first_s + i * growth_s` and gives one gap to
    each of `weight` sequences. A sequence's first token closes no gap.
    """

    COLUMNS = 5

    def __init__(self) -> None:
        self._rows = array("d")
        self.append = self._rows.frombytes  # takes a packed `segment`; packing is twice as fast as five floats

    def columns(self) -> NDArray[np.float64]:
        """All segments, shape (segments, 5): start_s, steps, first_s, growth_s, weight."""
        return np.frombuffer(self._rows, dtype=np.float64).reshape(-1, self.COLUMNS).copy()

    @property
    def start_s(self) -> NDArray[np.float64]:
        """When each segment begins, seconds."""
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
        """What each step lasts longer than the one before, seconds."""
        return self.columns()[:, 3]

    @property
    def weight(self) -> NDArray[np.int64]:
        """Sequences that each step of a segment gives a gap to."""
        return self.columns()[:, 4].astype(np.int64)


@mypyc_attr(allow_interpreted_subclasses=True)
class SuffixMax:
    """The longest step since a given step, for the maximum gap of a sequence that finishes now.

    Only values that no later value exceeds are kept (a monotone stack), so a push is O(1) amortised and a query one
    bisection, however many steps a sequence lived through.

    Attributes:
        ends: for each value kept, before which step its run of steps ends.
        values: those values.
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
        """Drop what no sequence that lives since `step` can ask for."""
        gone = bisect_right(self.ends, step)
        del self.ends[:gone]
        del self.values[:gone]
