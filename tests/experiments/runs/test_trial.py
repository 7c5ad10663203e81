"""Trials: what a run keeps, and that policies meet the same requests."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.workload import Workload
from experiments.analysis.outcome import Outcome
from experiments.runs import trial as module
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.requests import made
from experiments.runs.trial import Trial, run_trials
from hardware_profiles import InputError
from tests.experiments.made_up import trial

TRIALS = [trial(policy, load, seed) for load in (0.5, 1.0) for seed in (0, 1) for policy in ("static", "random")]
TIMES = {"decision_us_p50", "decision_us_p99"}


def run(trials: Sequence[Trial], folder: Path, jobs: int = 1) -> list[Outcome]:
    return run_trials(trials, Cache(folder, Execution(jobs)))


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """The workload of every simulation that is run in this process."""
    seen: list[Workload] = []
    simulate = module.simulate

    def count(workload: Workload, *args: Any, **kwargs: Any) -> object:
        seen.append(workload)
        return simulate(workload, *args, **kwargs)

    monkeypatch.setattr(module, "simulate", count)
    made.cache_clear()
    return seen


def test_outcomes_come_back_in_order_and_whole(tmp_path: Path) -> None:
    outcomes = run(TRIALS, tmp_path)
    assert [(out.policy, out.workload, out.load, out.seed) for out in outcomes] == [
        (one.policy, one.workload, one.load, one.seed) for one in TRIALS
    ]
    for out in outcomes:
        records, met = out.requests
        assert list(records["request"]) == list(range(40))
        assert met.mean() == pytest.approx(1.0)
        assert out.metrics["finished_share"] == 1
        assert out.label == f"made up, seed {out.seed}"
        assert out.nominal_rps == pytest.approx(5 * out.load)


def test_every_policy_meets_the_same_requests(tmp_path: Path, simulated: list[Workload]) -> None:
    outcomes = run(TRIALS, tmp_path)
    assert len(simulated) == len(TRIALS)
    assert len({id(workload) for workload in simulated}) == len(TRIALS) // 2
    digests = [out.requests_digest for out in outcomes]
    assert digests[::2] == digests[1::2]
    assert len(set(digests)) == len(TRIALS) // 2


def test_a_second_run_simulates_only_the_missing_trial(tmp_path: Path, simulated: list[Workload]) -> None:
    first = run(TRIALS, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}
    index = tmp_path / "results.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    lost = [line for line in lines if json.loads(line)["key"] == TRIALS[3].key]
    index.write_text("".join(line for line in lines if line not in lost))
    simulated.clear()
    again = run(TRIALS, tmp_path)
    assert len(lost) == len(simulated) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("*.npz")} == before
    assert [out for i, out in enumerate(again) if i != 3] == [out for i, out in enumerate(first) if i != 3]


def test_a_trial_that_keeps_no_requests_has_the_same_metrics(tmp_path: Path) -> None:
    (whole,) = run(TRIALS[:1], tmp_path / "whole")
    (bare,) = run([replace(TRIALS[0], keep_requests=False)], tmp_path / "bare")
    assert {**bare.metrics, **dict.fromkeys(TIMES)} == {**whole.metrics, **dict.fromkeys(TIMES)}
    assert bare.summary == whole.summary
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["results.jsonl"]


def test_an_interrupted_trial_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run(TRIALS[:1], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(tmp_path: Path) -> None:
    here = run(TRIALS[:4], tmp_path / "here")
    there = run(TRIALS[:4], tmp_path / "there", jobs=2)
    for one, other in zip(here, there, strict=True):
        for suffix in (".npz", ".csv.gz"):
            assert one.path.with_suffix(suffix).read_bytes() == other.path.with_suffix(suffix).read_bytes()
        assert {**one.metrics, **dict.fromkeys(TIMES)} == {**other.metrics, **dict.fromkeys(TIMES)}


@pytest.mark.slow
def test_invalid_input_in_a_worker_is_still_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown policy 'nonsense'"):
        run([trial("nonsense")], tmp_path, jobs=2)
