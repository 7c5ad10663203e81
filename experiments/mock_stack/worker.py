"""The interface between a router and the workers behind it."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

Tokens = Sequence[int]


class Worker(Protocol):
    """A client of one worker."""

    def generate(self, tokens: Tokens, max_tokens: int) -> AsyncIterator[Tokens]:
        """Send a prompt; yields new tokens whenever some arrive. Raises WorkerLostError."""


class WorkerLostError(Exception):
    """The worker of a node does not answer any more."""

    def __init__(self, node: int) -> None:
        super().__init__(f"the worker of node {node} is lost")
        self.node = node
