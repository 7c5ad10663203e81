"""Simulated time and the event queue, in a class that can be compiled.

`envs.cluster.clock.Clock` wraps it as a SimPy environment, which cannot be compiled.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from mypy_extensions import mypyc_attr
from simpy.events import NORMAL

from envs.cluster.call import Call


@mypyc_attr(allow_interpreted_subclasses=True)
class Timeline:
    """Simulated time and SimPy's event queue.

    Attributes:
        now_s: simulated time, seconds.
        queue: heap of SimPy's entries: time, priority, number, event.

    Args:
        process_next: processes the next event of the queue if it is not a `Call`.
    """

    __slots__ = ("_number", "_process_next", "now_s", "queue")

    def __init__(self, process_next: Callable[[], None]) -> None:
        self.now_s = 0.0
        self.queue: list[Any] = []
        self._number = 0
        self._process_next = process_next

    def next_number(self) -> int:
        """The next event's number; of events at the same time, lower numbers come first."""
        self._number = number = self._number + 1
        return number

    def call_at(self, time_s: float, call: Call) -> None:
        """Schedule `call` at `time_s` (seconds; not before now)."""
        self._number = number = self._number + 1
        heappush(self.queue, (time_s, NORMAL, number, call))

    def call_unless_cancelled(self, time_s: float, call: Call) -> int:
        """Schedule `call` at `time_s`; returns a number for `cancel`."""
        self.call_at(time_s, call)
        return self._number

    def cancel(self, number: int) -> None:
        """Remove a pending call from the queue, in time linear in the length of the queue."""
        self.queue[:] = [entry for entry in self.queue if entry[2] != number]
        heapify(self.queue)

    def advance_to(self, time_s: float) -> int:
        """Process every event before `time_s` and set the time to `time_s`; returns the number of events.

        Events AT `time_s` stay queued: a decision does not see events at its time.
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
        """Copy another timeline's time and pending events; `copied` returns the copy of an event."""
        self.now_s = other.now_s
        # Copying entry by entry preserves the heap.
        self.queue[:] = [(time_s, priority, number, copied(event)) for time_s, priority, number, event in other.queue]
        self._number = other._number
