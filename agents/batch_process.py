"""A batch of environments in another process, which steps concurrently with this one."""

from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.processes import end_with_parent, without_interrupts
from envs.batch import EnvBatch, Stepped
from envs.garbage_collection import rare_garbage_collection
from envs.observation import Observation

Shared = dict[str, tuple[Any, tuple[int, ...], Any]]
"""Arrays in shared memory by name: (memory, shape, type)."""

_STEP = {"rewards": np.float32, "dones": np.bool_, "dt_s": np.float32}


class BatchProcess:
    """An EnvBatch in a separate process; observations and rewards are passed in shared memory.

    The process ends when this object is closed, or when its parent ends.

    Args:
        batch: the environments, before their first reset.
        space: space of an observation.
    """

    def __init__(self, batch: EnvBatch, space: spaces.Dict) -> None:
        context = get_context("spawn")  # a forked child may inherit a lock held by a thread of NumPy or torch
        count = len(batch.envs)
        parts = {name: (part.shape or (), part.dtype) for name, part in space.spaces.items()}
        parts |= {name: ((), np.dtype(kind)) for name, kind in _STEP.items()}
        shared: Shared = {}
        for name, (shape, kind) in parts.items():
            empty = np.empty((count, *shape), dtype=kind)
            shared[name] = RawArray("b", empty.nbytes), empty.shape, empty.dtype
        self._arrays = _arrays(shared)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, batch, shared), daemon=True)
        with without_interrupts():
            self._process.start()
        theirs.close()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("a process with environments has ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]) -> Observation:
        """See `EnvBatch.reset`; the next step overwrites the arrays."""
        self._ask("reset", seeds, options)
        return self._observation()

    def step_async(self, rows: Sequence[int]) -> None:
        """Start a step."""
        self._connection.send(("step", rows))

    def step_wait(self) -> Stepped:
        """Wait for the step; see `EnvBatch.step`. The next step overwrites the arrays."""
        finals = self._answer()
        arrays = self._arrays
        return Stepped(self._observation(), arrays["rewards"], arrays["dones"], arrays["dt_s"], finals)

    def _observation(self) -> Observation:
        return {name: array for name, array in self._arrays.items() if name not in _STEP}

    def episodes(self) -> list[int]:
        """See `EnvBatch.episodes`."""
        found: list[int] = self._ask("episodes")
        return found

    def of_each(self, function: Callable[..., Any], indices: Sequence[int], *arguments: Any) -> list[Any]:
        """Call a picklable function with each of the environments `indices` and the arguments."""
        found: list[Any] = self._ask("of_each", function, indices, arguments)
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._connection.send(("close",))
            self._process.join()
        self._connection.close()


def _arrays(shared: Mapping[str, tuple[Any, tuple[int, ...], Any]]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(memory, dtype=kind).reshape(shape) for name, (memory, shape, kind) in shared.items()}


def _serve(connection: Connection, batch: EnvBatch, shared: Shared) -> None:
    """Serve the parent's requests until it closes the batch."""
    end_with_parent()
    arrays = _arrays(shared)
    with rare_garbage_collection():
        while True:
            name, *arguments = connection.recv()
            if name == "close":
                return
            try:
                connection.send(_done(name, arguments, batch, arrays))
            except Exception as error:  # the parent raises it
                connection.send(error)


def _done(name: str, arguments: list[Any], batch: EnvBatch, arrays: Mapping[str, np.ndarray]) -> Any:
    """Handle one request; returns the answer for the parent."""
    if name == "episodes":
        return batch.episodes
    if name == "of_each":
        function, indices, others = arguments
        return [function(batch.envs[index], *others) for index in indices]
    if name == "reset":
        observation, answer = batch.reset(*arguments), None
    else:
        observation, arrays["rewards"][:], arrays["dones"][:], arrays["dt_s"][:], answer = batch.step(*arguments)
    for part, array in observation.items():
        arrays[part][:] = array
    return answer
