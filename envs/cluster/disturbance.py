"""Events of a stress test: a node slows down, its links degrade, or it is lost."""

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from hardware_profiles import InputError

Kind = Literal["speed", "link", "loss"]


@dataclass(frozen=True)
class Disturbance:
    """One event of a stress test.

    The router is not notified: its topology has the undisturbed speeds and links. It can ask for
    `RouterView.measured_speed`.

    Attributes:
        at_s: time of the event, seconds.
        kind: "speed": the node's steps take 1 / factor times as long from its next step on; "link": its links have
            factor times their bandwidth; "loss": the node and the KV on it are lost. The requests on it are placed
            again, keep the tokens generated so far, and are counted.
        node: index of the node.
        factor: for "speed" and "link", relative to the undisturbed node; 1 restores it.

    Raises:
        InputError: a value is out of range.
    """

    at_s: float
    kind: Kind
    node: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"disturbance kind {self.kind!r} is not one of {', '.join(get_args(Kind))}")
        if not 0.0 <= self.at_s < inf:
            raise InputError(f"disturbance at {self.at_s} s: must be a finite time from 0 on")
        if not 0.0 < self.factor < inf:
            raise InputError(f"disturbance factor {self.factor}: must be a finite number above 0")
