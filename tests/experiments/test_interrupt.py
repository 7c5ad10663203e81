"""Ctrl-C during `compare --jobs 2`: it ends within two seconds with its workers, and a rerun resumes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.runs.cache import Cache
from tests.ctrl_c import LINE, LONGEST_S, interrupt

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes are there"),
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Requests for runs of a tenth of a second or more, so that many seeds take minutes."""
    path = tmp_path / "toy.csv"
    rows = "".join(f"{i * 0.05},{100 + i % 7 * 300},40\n" for i in range(1500))
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}")
    return path


def start(trace: Path, out: Path, seeds: int) -> subprocess.Popen[str]:
    """The command in a process group, as a shell makes one."""
    given = f"--policies static kairos --trace {trace} --trace-format native --jobs 2 --seeds {seeds} --out {out}"
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.compare", *given.split()],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def in_group(group: int) -> set[int]:
    """The processes of a group that are there."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(of_group) == group and state != "Z":
            found.add(int(stat.parent.name))
    return found


def none_left(group: int) -> bool:
    """Whether all processes of the group end; workers notice that their parent has."""
    for _ in range(50):
        if not in_group(group):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_compare_and_a_rerun_resumes(times: int, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(trace, out, 1000)
    assert process.stderr is not None
    for _ in range(6):
        assert re.match(r"\[\d+/2000\] ", process.stderr.readline())
    assert len(in_group(process.pid)) >= 3
    took_s, rest = interrupt(process, times)
    assert process.returncode == 130
    assert took_s < LONGEST_S
    lines = [line for line in rest.splitlines() if line and not re.match(r"\[\d+/2000\] ", line)]
    assert lines == [LINE]
    assert none_left(process.pid)

    index = out / "runs" / "results.jsonl"
    kept = index.read_bytes()
    wanted = {f"{policy} toy load 1 seed {seed}" for policy in ("static", "kairos") for seed in range(4)}
    tasks = [json.loads(line)["task"] for line in kept.splitlines()]
    finished = wanted & set(tasks)
    assert len(tasks) >= 6
    assert len(Cache(out / "runs")._values) == len(tasks)
    again = start(trace, out, 4)
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert stderr.startswith(f"{len(finished)} of {len(wanted)} runs are finished already\n")
    assert index.read_bytes().startswith(kept)
    assert len(index.read_bytes().splitlines()) == len(tasks) + len(wanted - finished)
    assert (out / "report.html").exists()


@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0])
def test_ctrl_c_while_workers_start_leaves_no_traceback(after_s: float, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(trace, out, 1000)
    while len(in_group(process.pid)) < 3 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(after_s)
    took_s, stderr = interrupt(process, 1)
    assert process.returncode == 130
    assert took_s < LONGEST_S
    assert "Traceback" not in stderr
    assert stderr.endswith(f"\n{LINE}\n")
    assert none_left(process.pid)
