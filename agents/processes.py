"""Tasks on several processes."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def finished(function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Task, Result]]:
    """Run `function` on each task and yield both as they are finished; with one job here, in order.

    Tasks are taken as they are needed, so a long list of large ones may be made on the way.
    """
    if jobs == 1:
        for task in tasks:
            yield task, function(task)
        return
    # Spawned, not forked: a forked child may inherit a lock that a thread of NumPy or torch held.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent)
    waiting = iter(tasks)
    running: dict[Future[Result], Task] = {}
    try:
        while True:
            # One more for each process, so that none waits for this one.
            for task in islice(waiting, 2 * jobs - len(running)):
                running[pool.submit(function, task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process when its parent does, even where that was killed: nobody else would tell it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
