"""The one pool of processes: lazy, complete, and gone when its parent is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.processes import finished

ROOT = Path(__file__).parents[2]


def squared(number: int) -> int:
    return number * number


def own_pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_one_job_runs_here_and_in_order() -> None:
    assert list(finished(squared, range(5), 1)) == [(k, k * k) for k in range(5)]


@pytest.mark.slow
def test_several_jobs_do_every_task_once_and_take_them_as_they_are_needed() -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    results = {}
    for number, square in finished(squared, tasks(), 2):
        results[number] = square
        assert taken <= len(results) + 4  # two for each process
    assert results == {k: k * k for k in range(40)}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes are there")
def test_a_killed_parent_leaves_no_process_behind() -> None:
    program = (
        "from agents.processes import finished\nfrom tests.agents.test_processes import own_pid\n"
        "for _, pid in finished(own_pid, range(10**6), 2): print(pid, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(10)}
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    for _ in range(600):  # as long as a machine may take that has much else to do
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {pids}")
