"""Simulated time: a SimPy environment that calls functions at absolute times.

The model schedules callbacks and keeps no live generators, so that a cluster can be copied and played forward.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
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
        self.function = callback


class Clock(simpy.Environment):
    """A SimPy environment with absolute-time callbacks.

    `Environment.schedule` takes a delay, and `now + (t - now)` is not `t` in floating point; the model compares times
    exactly, so `call_at` pushes the absolute time itself.

    Attributes:
        now_s: simulated time, seconds; a plain attribute, as it is read several times per event.
    """

    now_s: float

    @property
    def now(self) -> float:
        """Simulated time, seconds, under SimPy's own name."""
        return self.now_s

    @property
    def _now(self) -> float:  # SimPy's methods keep the time here
        return self.now_s

    @_now.setter
    def _now(self, time_s: float) -> None:
        self.now_s = time_s

    def call_at(self, time_s: float, call: Call) -> None:
        """Have `call` call its function at `time_s` (seconds; not before now)."""
        heappush(self._queue, (time_s, NORMAL, next(self._eid), call))

    def call_unless_cancelled(self, time_s: float, call: Call) -> int:
        """The same; returns a number for `cancel`."""
        number = next(self._eid)
        heappush(self._queue, (time_s, NORMAL, number, call))
        return number

    def cancel(self, number: int) -> None:
        """Take a pending call out of the queue; costs what is pending."""
        self._queue[:] = [entry for entry in self._queue if entry[2] != number]
        heapify(self._queue)

    def call_first_at(self, time_s: float, callback: Callable[[Any], None], value: object) -> None:
        """Call `callback(event)` at `time_s`, before the other calls of that instant; `event.value` is `value`."""
        event = Call(callback)
        event._value = value
        heappush(self._queue, (time_s, URGENT, next(self._eid), event))

    def copy_calls(self, other: "Clock", owners: Mapping[Any, object]) -> None:
        """Take over another clock's time and pending calls.

        Args:
            other: the clock to copy; every pending call must be a bound method.
            owners: for the owner of each such method, the object to call it on instead.
        """
        self.now_s = other.now_s
        self._queue.clear()
        for time_s, priority, number, event in other._queue:  # a heap stays one, entry by entry
            method: Any = event.callbacks[0]
            call = Call(getattr(owners[method.__self__], method.__name__))
            call._value = getattr(event, "_value", None)
            self._queue.append((time_s, priority, number, call))
        self._eid = count(max((entry[2] for entry in self._queue), default=0) + 1)

    def step(self) -> None:
        """Process the next event; a call without what only failing events and waiting processes need."""
        if self._queue:
            event = self._queue[0][3]
            if event.__class__ is Call:
                self.now_s = heappop(self._queue)[0]
                event.function(event)
                return
        super().step()

    def advance_to(self, time_s: float) -> int:
        """Process every event before `time_s`, then stand at `time_s`; returns how many there were.

        Events AT `time_s` stay queued: what happens at a decision's own instant is not seen by it.
        """
        queue = self._queue
        events = 0
        while queue and queue[0][0] < time_s:
            self.now_s, priority, number, event = heappop(queue)
            if event.__class__ is Call:  # `step`, inlined: one function less for every event
                event.function(event)
            else:
                heappush(queue, (self.now_s, priority, number, event))
                self.step()
            events += 1
        self.now_s = time_s
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
            self.now_s = until_s
        return events
