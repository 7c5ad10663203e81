"""Runs simulations in hindsight: in this process, or in another one next to a router that is in use."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Protocol

from agents.hindsight import SECONDS_PER_REQUEST, Hindsight, LookBack
from agents.processes import end_with_parent, without_interrupts
from envs.cluster import Policy

Fresh = Callable[[int], Policy]
"""Makes a member of a portfolio, by its number, that has placed nothing yet."""


class Simulations(Protocol):
    """Runs one look back after the other."""

    def start(self, wanted: LookBack, now_s: float) -> None:
        """Start; the one before must have been taken."""

    def take(self, now_s: float) -> list[Hindsight] | None:
        """The results of the one that was started, once; None until they are there."""


class SimulationsHere:
    """Runs them in this process, as if they took SECONDS_PER_REQUEST: for a cluster that is itself simulated."""

    def __init__(self, fresh: Fresh) -> None:
        self._fresh = fresh
        self._due_s = 0.0
        self._found: list[Hindsight] | None = None

    def start(self, wanted: LookBack, now_s: float) -> None:
        """Run them now; their results are there later."""
        self._found = wanted.run(self._fresh)
        self._due_s = now_s + SECONDS_PER_REQUEST * wanted.requests

    def take(self, now_s: float) -> list[Hindsight] | None:
        """The results, once their time has come."""
        if self._found is None or now_s < self._due_s:
            return None
        found, self._found = self._found, None
        return found


class SimulationsElsewhere:
    """Runs them in another process, with low priority, so that decisions do not wait for them.

    Args:
        make: called in that process for the maker of members; picklable.
    """

    def __init__(self, make: Callable[[], Fresh]) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(make,))
        self._running: Future[list[Hindsight]] | None = None
        with without_interrupts():  # starts the process, so that the first look back need not wait for it
            self._pool.submit(os.getpid)

    def start(self, wanted: LookBack, _now_s: float) -> None:
        """Start them."""
        self._running = self._pool.submit(_run, wanted)

    def take(self, _now_s: float) -> list[Hindsight] | None:
        """The results, once they are there."""
        if self._running is None or not self._running.done():
            return None
        running, self._running = self._running, None
        return running.result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)


_fresh: Fresh | None = None  # of the other process


def _begin(make: Callable[[], Fresh]) -> None:
    global _fresh
    end_with_parent()
    os.nice(10)
    _fresh = make()


def _run(wanted: LookBack) -> list[Hindsight]:
    assert _fresh is not None
    return wanted.run(_fresh)
