"""Simulated time: a SimPy environment that calls functions at absolute times.

The simulation schedules callbacks and has no running generators, so that a cluster can be copied and simulated further.
"""

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import URGENT

from envs.cluster.call import Call
from envs.cluster.timeline import Timeline


class Clock(simpy.Environment):
    """A SimPy environment with absolute-time callbacks.

    `Environment.schedule` takes a delay, and `now + (t - now)` may differ from `t` in floating point. The simulation
    compares times exactly, so `call_at` pushes the absolute time.

    Attributes:
        timeline: the time and the event queue; the parts of a cluster use it directly, because it may be compiled.
        call_at, advance_to: methods of `timeline`.
    """

    def __init__(self) -> None:
        self.timeline = timeline = Timeline(super().step)
        super().__init__()
        self._queue = timeline.queue
        self._eid: Any = iter(timeline.next_number, None)  # SimPy takes the numbers of its events from this iterator
        self.call_at = timeline.call_at
        self.advance_to = timeline.advance_to

    @property
    def now_s(self) -> float:
        """Simulated time, seconds."""
        return self.timeline.now_s

    @property
    def now(self) -> float:
        """Simulated time, seconds, under SimPy's name."""
        return self.timeline.now_s

    @property
    def _now(self) -> float:  # SimPy's methods store the time under this name
        return self.timeline.now_s

    @_now.setter
    def _now(self, time_s: float) -> None:
        self.timeline.now_s = time_s

    def call_first_at(self, time_s: float, callback: Callable[[Any], None], value: object) -> None:
        """Call `callback(event)` at `time_s`, before all other calls at that time; `event.value` is `value`."""
        event = Call(callback)
        event._value = value
        heappush(self._queue, (time_s, URGENT, self.timeline.next_number(), event))

    def copy_calls(self, other: "Clock", owners: Mapping[Any, object]) -> None:
        """Copy another clock's time and pending calls.

        Args:
            other: the clock to copy; every pending call must be a bound method.
            owners: maps the object of each such method to the object to call it on instead.
        """

        def copied(event: Any) -> Call:
            method: Any = event.callbacks[0]
            call = Call(getattr(owners[method.__self__], method.__name__))
            call._value = getattr(event, "_value", None)
            return call

        self.timeline.copy_state(other.timeline, copied)

    def step(self) -> None:
        """Process the next event; a `Call` skips the work for failed events and waiting processes."""
        if self._queue:
            event = self._queue[0][3]
            if event.__class__ is Call:
                self.timeline.now_s = heappop(self._queue)[0]
                event.function(event)
                return
        super().step()

    def drain(self, until_s: float) -> int:
        """Process every event up to and including `until_s`; returns the number of events.

        The time is then that of the last event, or `until_s` if later events remain.
        """
        events = 0
        while self._queue and self._queue[0][0] <= until_s:
            self.step()
            events += 1
        if self._queue:
            self.timeline.now_s = until_s
        return events
