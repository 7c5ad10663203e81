"""Simulated time: a SimPy environment that calls functions at absolute times.

The model schedules callbacks and keeps no live generators, so that a cluster can be copied and played forward.
"""

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Any

import simpy
from simpy.events import NORMAL, URGENT, Event


class Call(Event):
    """An event that is triggered from birth and may be scheduled any number of times.

    `Event.__init__` would mark it as pending.
    """

    _ok = True

    def __init__(self, callback: Callable[[Any], None]) -> None:
        self.callbacks = [callback]


class Clock(simpy.Environment):
    """A SimPy environment with absolute-time callbacks.

    `Environment.schedule` takes a delay, and `now + (t - now)` is not `t` in floating point; the model compares times
    exactly, so `call_at` pushes the absolute time itself.
    """

    def call_at(self, time_s: float, call: Call) -> None:
        """Have `call` call its function at `time_s` (seconds; not before now)."""
        heappush(self._queue, (time_s, NORMAL, next(self._eid), call))

    def call_first_at(self, time_s: float, callback: Callable[[Any], None], value: object) -> None:
        """Call `callback(event)` at `time_s`, before the other calls of that instant; `event.value` is `value`."""
        event = Call(callback)
        event._value = value
        heappush(self._queue, (time_s, URGENT, next(self._eid), event))

    def copy_calls(self, other: "Clock", owners: Mapping[Any, object], values: Mapping[Any, object]) -> None:
        """Take over another clock's time and pending calls.

        Args:
            other: the clock to copy; every pending call must be a bound method.
            owners: for the owner of each such method, the object to call it on instead.
            values: likewise for the calls' values; values that are not in it stay.
        """
        self._now = other._now
        self._queue = []
        for time_s, priority, number, event in other._queue:  # a heap stays one, entry by entry
            method: Any = event.callbacks[0]
            call = Call(getattr(owners[method.__self__], method.__name__))
            value = getattr(event, "_value", None)
            call._value = values.get(value, value)
            self._queue.append((time_s, priority, number, call))
        self._eid = count(max((entry[2] for entry in self._queue), default=0) + 1)

    def step(self) -> None:
        """Process the next event; a call without what only failing events and waiting processes need."""
        if self._queue and self._queue[0][3].__class__ is Call:
            self._now, _, _, event = heappop(self._queue)
            event.callbacks[0](event)
        else:
            super().step()

    def advance_to(self, time_s: float) -> int:
        """Process every event before `time_s`, then stand at `time_s`; returns how many there were.

        Events AT `time_s` stay queued: what happens at a decision's own instant is not seen by it.
        """
        queue = self._queue
        events = 0
        while queue and queue[0][0] < time_s:
            entry = heappop(queue)
            event = entry[3]
            if event.__class__ is Call:  # `step`, inlined: one function less for every event
                self._now = entry[0]
                event.callbacks[0](event)
            else:
                heappush(queue, entry)
                self.step()
            events += 1
        self._now = time_s
        return events

    def drain(self, until_s: float) -> int:
        """Process every event up to and including `until_s`; returns how many there were.

        Stands at the last event, or at `until_s` where later ones remain.
        """
        events = 0
        while self._queue and self._queue[0][0] <= until_s:
            self.step()
            events += 1
        if self._queue:
            self._now = until_s
        return events
