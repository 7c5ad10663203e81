"""Where jobs run: processes of this machine, or a Ray cluster.

A job carries all it needs and returns all it found, so the machines of a cluster need no folder in common; they need
the same code. Which cluster: that of RAY_ADDRESS, else one started on this machine, else a new one of its cores.
"""

import os
import platform
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from agents import processes
from experiments.digests import digest, simulation_digest
from hardware_profiles import InputError

EXECUTORS = ("local", "ray")
_REMEDY = "install the same on every machine, or start the command with ray job submit --working-dir"

Task = TypeVar("Task")
Result = TypeVar("Result")


def check(executor: str) -> None:
    """Refuse an executor that cannot be used here.

    Raises:
        InputError: ray is not installed.
    """
    if executor == "ray" and find_spec("ray") is None:
        raise InputError("--executor ray needs the package ray, which is not installed; it comes with the extra ray")


def finished(
    function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int | None, executor: str = "local"
) -> Iterator[tuple[Task, Result]]:
    """Run `function` on each task and yield both as they are finished.

    Args:
        function: of a module that can be imported where it runs.
        tasks: taken as they are needed.
        jobs: how many at a time; None: one, or on a cluster two for each of its cores, so that none waits for work.
        executor: one of EXECUTORS.

    Raises:
        InputError: no such cluster, or a machine of it has other code; and what `function` raises.
    """
    if executor == "ray":
        return _on_ray(function, tasks, jobs)
    return processes.finished(function, tasks, jobs or 1)


def _on_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int | None
) -> Iterator[tuple[Task, Result]]:
    ray = _connected()
    remote = ray.remote(_with_this_code)
    at_a_time = jobs or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(tasks)
    running: dict[Any, Task] = {}
    try:
        while True:
            for task in islice(waiting, at_a_time - len(running)):
                running[remote.remote(function, task, _code())] = task
            if not running:
                return
            for reference in ray.wait(list(running))[0]:
                task = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                yield task, result
    finally:
        for reference in running:
            ray.cancel(reference)


def _cause(error: Any) -> Exception:
    """What was raised on the cluster, as it was raised there: Ray's own error has the traceback in its text."""
    if "failed to import on the worker" in str(error.cause):
        return InputError(f"a machine of the Ray cluster cannot import this project; {_REMEDY}")
    cause: Exception = error.cause
    return cause


def _connected() -> Any:
    """The package, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    import ray

    if not ray.is_initialized():
        _knock(os.environ.get("RAY_ADDRESS", ""))
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray


def _knock(address: str) -> None:
    """Refuse a HOST:PORT where nobody answers; Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()) or "/" in host:
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"RAY_ADDRESS {address}: no Ray cluster answers there ({error})") from error


@cache
def _code() -> str:
    """What has to be the same everywhere for the results to be."""
    return digest(simulation_digest(), platform.python_version(), np.__version__)


def _with_this_code(function: Callable[[Task], Result], task: Task, code: str) -> Result:
    if _code() != code:
        raise InputError(
            f"machine {socket.gethostname()} of the Ray cluster has another version of this project, Python or NumPy; "
            + _REMEDY
        )
    return function(task)
