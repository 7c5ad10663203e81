"""The kind of event that the model schedules."""

from collections.abc import Callable
from typing import Any

from simpy.events import Event


class Call(Event):
    """An event that is triggered from birth and may be scheduled any number of times.

    `Event.__init__` would mark it as pending.
    """

    _ok = True

    def __init__(self, callback: Callable[[Any], None]) -> None:
        self.callbacks = [callback]
        self.function = callback
