"""A killed comparison goes on where it was: what was finished is not run again, and the outcome is the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from envs.workload import Workload
from experiments.cells import Cell, Outcome, run_cells
from tests.experiments.made_up import CONFIG

ROOT = Path(__file__).parents[2]
CELLS = [Cell(policy, "toy", 1.0, seed) for seed in range(20) for policy in ("static", "kairos", "random")]


def toy_workload(name: str, load: float, seed: int) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(0.1 / load, 1500))
    return Workload.of(arrival_s, rng.integers(1, 900, 1500), rng.integers(1, 60, 1500), label=name)


def killed_workload(name: str, load: float, seed: int) -> Workload:
    """The same, but the machine goes down when about half of the cells are finished and two are running."""
    if seed == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return toy_workload(name, load, seed)


def run(folder: Path, workload_of: Callable[[str, float, int], Workload] = toy_workload) -> list[Outcome]:
    return run_cells(CELLS, workload_of, CONFIG, folder, jobs=2)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process as a machine that goes down would")
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from tests.experiments.test_resume import killed_workload, run; "
        f"run(Path({str(tmp_path)!r}), killed_workload)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert 30 - 4 <= len(kept) <= 30  # of the 30 cells before seed 10, four at most were handed out and not finished
    broken = run(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = run_cells(CELLS[:12], toy_workload, CONFIG, tmp_path / "whole")
    for one, other in zip(broken, whole, strict=False):
        assert one.cell == other.cell
        assert one.path.read_bytes() == other.path.read_bytes()
        assert one.packed_rows == other.packed_rows
        assert one.tally == other.tally
