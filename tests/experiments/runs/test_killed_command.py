"""A killed command resumes: finished runs are not run again, and the results are the same."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from envs.workload import Workload
from experiments.analysis.outcome import Outcome
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.trial import run_trials
from tests.experiments.made_up import MadeUpRequests, trial

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class UntilKilled(MadeUpRequests):
    """Requests; if asked to, the machine goes down when half of the trials are finished and two are running."""

    def make(self) -> Workload:
        if self.seed == 10 and "KILL_AT_SEED_10" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make()


TRIALS = [
    trial(policy, seed=seed, requests=UntilKilled(seed, 0.1, 1500))
    for seed in range(20)
    for policy in ("static", "kairos", "random")
]


def run(folder: Path) -> list[Outcome]:
    return run_trials(TRIALS, Cache(folder, Execution(2)))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process as a machine that goes down would")
def test_a_killed_command_resumes(tmp_path: Path) -> None:
    module = "tests.experiments.runs.test_killed_command"
    program = f"from pathlib import Path; from {module} import run; run(Path({str(tmp_path)!r}))"
    environment = {**os.environ, "KILL_AT_SEED_10": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, check=False
    )
    assert done.returncode == -signal.SIGKILL
    kept = (tmp_path / "results.jsonl").read_bytes()
    finished = {json.loads(line)["key"] for line in kept.splitlines()}
    assert 30 - 4 <= len(finished) <= 30  # of the 30 before seed 10, four at most were handed out and not finished
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz") if path.stem in finished}
    resumed = run(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes().startswith(kept)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    whole = run_trials(TRIALS[:12], Cache(tmp_path / "whole"))
    for one, other in zip(resumed, whole, strict=False):
        assert one.path.name == other.path.name
        for suffix in (".npz", ".csv.gz"):
            assert one.path.with_suffix(suffix).read_bytes() == other.path.with_suffix(suffix).read_bytes()
        assert one.summary == other.summary
