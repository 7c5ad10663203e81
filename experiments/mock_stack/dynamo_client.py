"""Clients of Dynamo's workers, and the thread that takes in their step reports."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from experiments.mock_stack.child_processes import variables
from experiments.mock_stack.dynamo_process import runtime
from experiments.mock_stack.mock_workers import endpoint
from experiments.mock_stack.model_folder import MODEL
from experiments.mock_stack.worker import Tokens, WorkerLostError


@contextmanager
def dynamo_environment(folder: Path) -> Iterator[None]:
    """Set the variables of Dynamo for the workers of a folder, and keep its log there: it writes a line per request."""
    os.environ.update(variables(folder))
    sys.stderr.flush()
    before = os.dup(2)
    with (folder / "router.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


class DynamoWorker:
    """A client of the worker of one node; see `mock_stack.worker`."""

    def __init__(self, node: int, client: Any) -> None:
        self.node = node
        self._client = client

    async def generate(self, tokens: Tokens, max_tokens: int) -> AsyncIterator[Tokens]:
        """Send a prompt; yields new tokens whenever some arrive. Raises WorkerLostError."""
        request = {
            "model": MODEL,
            "token_ids": tokens,
            "stop_conditions": {"max_tokens": max_tokens, "ignore_eos": True},
            "sampling_options": {},
            "output_options": {},
            "eos_token_ids": [],
            "annotations": [],
        }
        try:
            async for message in await self._client.generate(request, annotated=False):
                if message["token_ids"]:
                    yield message["token_ids"]
        except Exception as error:  # the runtime raises several kinds, its base class among them
            raise WorkerLostError(self.node) from error


async def connect(nodes: int) -> tuple[Any, list[DynamoWorker]]:
    """The runtime, and a client of each node's worker."""
    own = runtime()
    clients = [await own.endpoint(endpoint(node)).client() for node in range(nodes)]
    for client in clients:
        await client.wait_for_instances()
    return own, [DynamoWorker(node, client) for node, client in enumerate(clients)]


def follow_steps(own: Any, node: int, stepped: Callable[[int, Any], object]) -> None:
    """Let the event loop call `stepped` with a node and each step report of its worker.

    The reports come from a thread that ends with the process.
    """
    import msgspec
    from dynamo.llm import FpmEventSubscriber

    loop = asyncio.get_running_loop()
    reports = FpmEventSubscriber(own.endpoint(endpoint(node)))

    def take_in() -> None:
        while (message := reports.recv()) is not None:
            if loop.is_closed():
                return
            loop.call_soon_threadsafe(stepped, node, msgspec.msgpack.decode(message))

    Thread(target=take_in, daemon=True).start()
