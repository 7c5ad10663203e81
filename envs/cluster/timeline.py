"""Simulated time and the calls that are due: what every event goes through, in a class that can be compiled.

`envs.cluster.clock.Clock` is the same as a SimPy environment, which cannot be.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from mypy_extensions import mypyc_attr
from simpy.events import NORMAL

from envs.cluster.call import Call


@mypyc_attr(allow_interpreted_subclasses=True)
class Timeline:
    """The time, and SimPy's queue of events.

    Attributes:
        now_s: simulated time, seconds.
        queue: heap of SimPy's entries: time, priority, number, event.

    Args:
        process_next: processes the next event of the queue if it is no `Call`.
    """

    __slots__ = ("_number", "_process_next", "now_s", "queue")

    def __init__(self, process_next: Callable[[], None]) -> None:
        self.now_s = 0.0
        self.queue: list[Any] = []
        self._number = 0
        self._process_next = process_next

    def next_number(self) -> int:
        """The next event's number; of equal times the lesser comes first."""
        self._number = number = self._number + 1
        return number

    def call_at(self, time_s: float, call: Call) -> None:
        """Have `call` call its function at `time_s` (seconds; not before now)."""
        self._number = number = self._number + 1
        heappush(self.queue, (time_s, NORMAL, number, call))

    def call_unless_cancelled(self, time_s: float, call: Call) -> int:
        """The same; returns a number for `cancel`."""
        self.call_at(time_s, call)
        return self._number

    def cancel(self, number: int) -> None:
        """Take a pending call out of the queue; costs what is pending."""
        self.queue[:] = [entry for entry in self.queue if entry[2] != number]
        heapify(self.queue)

    def advance_to(self, time_s: float) -> int:
        """Process every event before `time_s`, then stand at `time_s`; returns how many there were.

        Events AT `time_s` stay queued: what happens at a decision's own instant is not seen by it.
        """
        queue = self.queue
        events = 0
        while queue and queue[0][0] < time_s:
            entry = heappop(queue)
            self.now_s = entry[0]
            event = entry[3]
            if event.__class__ is Call:
                event.function(event)
            else:
                heappush(queue, entry)
                self._process_next()
            events += 1
        self.now_s = time_s
        return events

    def copy_state(self, other: "Timeline", copied: Callable[[Any], Any]) -> None:
        """Take over another timeline's time and pending events; `copied` gives the one here for each."""
        self.now_s = other.now_s
        # A heap stays one, entry by entry.
        self.queue[:] = [(time_s, priority, number, copied(event)) for time_s, priority, number, event in other.queue]
        self._number = other._number
