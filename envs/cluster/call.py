"""The event type that the simulation schedules."""

from collections.abc import Callable
from typing import Any

from simpy.events import Event


class Call(Event):
    """An event that counts as triggered when created and may be scheduled any number of times.

    It does not call `Event.__init__`, which would mark it as pending.
    """

    _ok = True

    def __init__(self, callback: Callable[[Any], None]) -> None:
        self.callbacks = [callback]
        self.function = callback
