"""Executors run tasks in processes of this machine, or on a Ray cluster.

A job carries all it needs and returns all it found, so the machines of a cluster need no folder in common; they need
the same code. The Ray cluster is that of RAY_ADDRESS, else one started on this machine, else a new one of its cores.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from multiprocessing import active_children, get_context
from typing import Any, Literal, TypeVar

from agents.processes import end_with_parent, without_interrupts
from experiments.runs import fingerprint
from hardware_profiles import InputError
from policies.registry import LOADERS

Executor = Literal["local", "ray"]
_REMEDY = "install the same on every machine, or start the command with ray job submit --working-dir"

Task = TypeVar("Task")
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Execution:
    """The place where tasks run, and how many at a time. Raises InputError (ray is not installed)."""

    jobs: int | None = 1  # None: one, or on a Ray cluster two per core, so that no core waits for work
    executor: Executor = "local"

    def __post_init__(self) -> None:
        if self.executor == "ray" and find_spec("ray") is None:
            raise InputError("--executor ray needs the package ray; pip install -e '.[ray]'")

    def finished(
        self, function: Callable[[Job], Result], tasks: Iterable[Task], job_of: Callable[[Task], Job]
    ) -> Iterator[tuple[Task, Result]]:
        """Run `function` on the job of each task and yield tasks and results as they finish; in order with one job.

        Tasks are taken, and `job_of` makes the argument of `function`, when their turn comes. Raises InputError (no
        such Ray cluster, or a machine of it has other code) and what `function` raises.
        """
        if self.executor == "ray":
            return _on_ray(function, tasks, job_of, self.jobs)
        if (self.jobs or 1) == 1:
            return ((task, function(job_of(task))) for task in tasks)
        return _on_processes(function, tasks, job_of, self.jobs or 1)


def _overlapping(
    tasks: Iterable[Task], most: int, running: dict[Any, Task], start: Callable[[Task], Any], done: Callable[[], Any]
) -> Iterator[tuple[Task, Any]]:
    """Keep at most so many tasks running; yield each with its handle from `start` when `done` returns that."""
    waiting = iter(tasks)
    while True:
        for task in islice(waiting, most - len(running)):
            running[start(task)] = task
        if not running:
            return
        for handle in done():
            yield running.pop(handle), handle


def _on_processes(
    function: Callable[[Job], Result], tasks: Iterable[Task], job_of: Callable[[Task], Job], jobs: int
) -> Iterator[tuple[Task, Result]]:
    # Spawned, not forked: a forked child may inherit a lock that a thread of NumPy or torch held.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent)
    running: dict[Future[Result], Task] = {}

    def start(task: Task) -> Future[Result]:
        job = job_of(task)
        with without_interrupts():
            return pool.submit(function, job)

    def done() -> list[Future[Result]]:
        ended = wait(running, return_when=FIRST_COMPLETED).done
        return sorted(ended, key=lambda future: future.exception() is not None)  # no result is lost to an error

    try:
        for task, future in _overlapping(tasks, 2 * jobs, running, start, done):  # 2: no process waits for this one
            yield task, future.result()
    except BaseException:  # after an error or Ctrl-C nobody waits for the jobs that run
        for worker in active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def in_process(function: Callable[[Job], Result], job: Job) -> Result:
    """Run a function in a new process, which ends with this one."""
    ((_, result),) = _on_processes(function, [job], lambda task: task, 1)
    return result


def _on_ray(
    function: Callable[[Job], Result], tasks: Iterable[Task], job_of: Callable[[Task], Job], jobs: int | None
) -> Iterator[tuple[Task, Result]]:
    ray = _connected()
    remote = ray.remote(_with_this_code).remote
    most = jobs or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Task] = {}

    def start(task: Task) -> Any:
        return remote(function, job_of(task), _code())

    try:
        for task, reference in _overlapping(tasks, most, running, start, lambda: ray.wait(list(running))[0]):
            yield task, ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # has the traceback in its text; the cause is as it was raised there
        if "failed to import on the worker" in str(error.cause):
            raise InputError(f"a machine of the Ray cluster cannot import this project; {_REMEDY}") from None
        raise error.cause from None
    finally:
        for reference in running:
            ray.cancel(reference)


def _connected() -> Any:
    """The package, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    import ray

    if not ray.is_initialized():
        _check_address(os.environ.get("RAY_ADDRESS", ""))
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray


def _check_address(address: str) -> None:
    """Refuse a HOST:PORT that nothing listens on; Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()) or "/" in host:
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"RAY_ADDRESS {address}: no Ray cluster answers there ({error})") from error


def _code() -> str:
    """The fingerprint that every machine must have for the results to be the same."""
    tasks = [f"experiments.runs.{name}" for name in ("trial", "tuning", "saturation", "watched_run")]
    return fingerprint.code(
        *tasks, "experiments.learning.training_run", *(loader.partition(":")[0] for loader in LOADERS.values())
    )


def _with_this_code(function: Callable[[Job], Result], job: Job, code: str) -> Result:
    if _code() != code:
        raise InputError(
            f"machine {socket.gethostname()} of the Ray cluster has another version of this project, Python or NumPy; "
            + _REMEDY
        )
    return function(job)
