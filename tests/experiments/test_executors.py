"""A Ray cluster gives what processes of this machine give, and what is missing is told in one line."""

import csv
import gzip
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.export import save_policy
from agents.network import PlacementNetwork
from agents.placement_policy import current_layout
from envs.workload import Workload
from experiments import cells, executors
from experiments.cells import Cell, run_cells
from experiments.executors import finished
from hardware_profiles import InputError
from tests.experiments.made_up import CONFIG

ROOT = Path(__file__).parents[2]
TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.1},{100 + i % 7 * 300},20\n" for i in range(80))
TIMES = {"decision_us_p50", "decision_us_p99"}

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the package ray (extra ray) is not installed")


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "experiments.compare", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )


def small_workload(name: str, load: float, seed: int) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload.of(np.cumsum(rng.exponential(0.2 / load, 30)), rng.integers(1, 900, 30), [20] * 30, label=name)


def test_by_default_tasks_run_here_one_after_the_other() -> None:
    assert list(finished(abs, [-3, 2], None)) == [(-3, 3), (2, 2)]


def test_a_missing_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda _: None)
    executors.check("local")
    with pytest.raises(InputError, match="needs the package ray") as error:
        executors.check("ray")
    assert "\n" not in str(error.value)


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
        executors._knock(address)


def test_a_machine_with_other_code_is_refused() -> None:
    assert executors._with_this_code(abs, -2, executors._code()) == 2
    with pytest.raises(InputError, match="another version of this project"):
        executors._with_this_code(abs, -2, "other")


def test_a_job_carries_a_trained_policy_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the file runs it all the same, and gives the same."""
    path = tmp_path / "policy.npz"
    layout = current_layout("pairs")
    save_policy(path, PlacementNetwork(layout.sizes, 8), layout, {})

    def elsewhere(function: Callable[[Any], Any], tasks: Iterable[Any], *_: object) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            sent = pickle.dumps(task)
            path.unlink()
            yield task, pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(pickle.loads(sent))))

    cell = Cell(f"mine={path}", "toy", 1.0, 0)
    (here,) = run_cells([cell], small_workload, CONFIG, tmp_path / "here")
    monkeypatch.setattr(cells, "finished", elsewhere)
    (there,) = run_cells([cell], small_workload, CONFIG, tmp_path / "there")
    assert not path.exists()
    assert there.path.read_bytes() == here.path.read_bytes()
    assert there.packed_rows == here.packed_rows


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
def test_a_mistake_on_a_ray_cluster_is_one_line(tmp_path: Path) -> None:
    trace = tmp_path / "toy.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "0,100,20\n" * 20 + "1,5000000,20\n")
    given = f"--policies static --trace {trace} --trace-format native --executor ray --out {tmp_path / 'out'}"
    done = run_command(*given.split(), RAY_ADDRESS="local")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
