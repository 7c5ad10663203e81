"""Executors: one pool of processes that is lazy, complete, and gone with its parent; or a Ray cluster."""

import csv
import gzip
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from experiments.runs import executors
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.trial import run_trials
from hardware_profiles import InputError
from tests.experiments.made_up import trial
from tests.refusal import refused

ROOT = Path(__file__).parents[3]
TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.1},{100 + i % 7 * 300},20\n" for i in range(80))
TIMES = {"decision_us_p50", "decision_us_p99"}

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the package ray (extra ray) is not installed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes are there")


def squared(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise InputError(f"no {number}")


def its_pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def sleeps(number: int) -> int:
    time.sleep(600)
    return number


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def none_alive(pids: set[int]) -> bool:
    """Whether these processes end within a minute: a machine may have much else to do."""
    for _ in range(600):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [None, 1])
def test_by_default_tasks_run_here_one_after_the_other(jobs: int | None) -> None:
    prepared: list[int] = []

    def job_of(number: int) -> int:
        prepared.append(number)
        return number + 1

    for done, (number, result) in enumerate(Execution(jobs).finished(squared, range(5), job_of), start=1):
        assert number == done - 1
        assert result == (number + 1) ** 2
        assert len(prepared) == done  # a job is made when its turn comes


@pytest.mark.slow
def test_several_jobs_do_every_task_once_and_take_them_as_needed() -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    results = {}
    for number, square in Execution(2).finished(squared, tasks(), lambda number: number):
        results[number] = square
        assert taken <= len(results) + 4  # two for each process
    assert results == {k: k * k for k in range(40)}


@pytest.mark.slow
@needs_proc
def test_an_error_in_a_worker_is_raised_here_and_ends_the_workers() -> None:
    tasks: list[tuple[Callable[[int], int], int]] = [*[(its_pid, k) for k in range(40)], (sleeps, 1), (refuse, 7)]
    results = Execution(2).finished(_called, tasks, lambda task: task)
    pids = {next(results)[1] for _ in range(40)}
    with pytest.raises(InputError, match="no 7"):
        list(results)
    assert none_alive(pids)


def _called(job: tuple[Callable[[int], int], int]) -> int:
    function, argument = job
    return function(argument)


@pytest.mark.slow
@needs_proc
def test_a_killed_command_leaves_no_worker_behind() -> None:
    program = (
        "from experiments.runs.executors import Execution\n"
        "from tests.experiments.runs.test_executors import its_pid\n"
        "for _, pid in Execution(2).finished(its_pid, range(10**6), int): print(pid, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(10)}
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    assert none_alive(pids)


# ---- Ray -------------------------------------------------------------------------------------------------------------


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "experiments.compare", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )


def test_a_missing_ray_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda _: None)
    assert Execution(2, "local").jobs == 2
    with refused("needs the package ray"):
        Execution(2, "ray")


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
@pytest.mark.slow
def test_without_ray_the_command_ends_with_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_command("--policies", "static", "--workload", "burst", "--executor", "ray", "--out", str(out))
    assert done.returncode == 2
    assert done.stderr.startswith("error: --executor ray needs the package ray")
    assert done.stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:70000"])
def test_an_address_where_nobody_answers_is_named(address: str) -> None:
    with pytest.raises(InputError, match=f"RAY_ADDRESS {address}: no Ray cluster answers there"):
        executors._check_address(address)


def test_a_machine_with_other_code_is_refused() -> None:
    assert executors._with_this_code(abs, -2, executors._code()) == 2
    with pytest.raises(InputError, match="another version of this project"):
        executors._with_this_code(abs, -2, "other")


def test_a_job_carries_a_trained_policy_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the policy's file runs the job too, with the same result."""
    # Imported here: torch takes seconds, and every worker of the other tests imports this module.
    from agents.placement_network import PlacementNetwork
    from agents.placement_policy import current_layout
    from agents.policy_file import save_policy

    path = tmp_path / "policy.npz"
    layout = current_layout("pairs")
    save_policy(path, PlacementNetwork(layout.sizes, 8), layout, {})
    only = trial(f"mine={path}")
    (here,) = run_trials([only], Cache(tmp_path / "here"))
    there = trial(f"mine={path}")
    assert there.key == here.path.stem  # is kept, so that the file is not needed later

    def elsewhere(
        _: Execution, function: Callable[[Any], Any], tasks: list[Any], job_of: Callable[[Any], Any]
    ) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            sent = pickle.dumps((function, job_of(task)))
            path.unlink()
            run, job = pickle.loads(sent)
            yield task, pickle.loads(pickle.dumps(run(job)))

    monkeypatch.setattr(Execution, "finished", elsewhere)
    (sent,) = run_trials([there], Cache(tmp_path / "there"))
    assert not path.exists()
    for suffix in (".npz", ".csv.gz"):
        assert sent.path.with_suffix(suffix).read_bytes() == here.path.with_suffix(suffix).read_bytes()


@pytest.mark.slow
@needs_ray
def test_a_ray_cluster_gives_the_same_bit_for_bit(tmp_path: Path) -> None:
    trace = tmp_path / "toy.csv"
    trace.write_text(TRACE)
    given = f"--policies static kairos random --trace {trace} --trace-format native --rate-scale 3 --seeds 2 --out"
    for out, executor in (("here", "local"), ("there", "ray")):
        # None of the clusters that may be at hand: a new one on this machine.
        done = run_command(*given.split(), str(tmp_path / out), "--executor", executor, RAY_ADDRESS="local")
        assert done.returncode == 0, done.stderr
    here, there = tmp_path / "here", tmp_path / "there"
    assert (here / "requests.csv.gz").read_bytes() == (there / "requests.csv.gz").read_bytes()
    tables = [list(csv.DictReader((out / "cells.csv").read_text().splitlines())) for out in (here, there)]
    assert len(tables[0]) == len(tables[1]) == 6
    for one, other in zip(*tables, strict=True):
        assert {name for name in one if one[name] != other[name]} <= TIMES
    assert gzip.decompress((here / "requests.csv.gz").read_bytes()).count(b"\n") == 1 + 6 * 80


@pytest.mark.slow
@needs_ray
def test_invalid_input_on_a_ray_cluster_is_one_line(tmp_path: Path) -> None:
    trace = tmp_path / "toy.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "0,100,20\n" * 20 + "1,5000000,20\n")
    given = f"--policies static --trace {trace} --trace-format native --executor ray --out {tmp_path / 'out'}"
    done = run_command(*given.split(), RAY_ADDRESS="local")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
