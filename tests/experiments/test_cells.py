from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.workload import Workload
from experiments import cells
from experiments.cells import Cell, run_cells
from hardware_profiles import InputError
from tests.experiments.made_up import CONFIG

CELLS = [Cell(policy, "toy", load, seed) for load in (0.5, 1.0) for seed in (0, 1) for policy in ("static", "random")]


def toy_workload(name: str, load: float, seed: int) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(0.2 / load, 40))
    prompt_tokens, output_tokens = rng.integers(1, 900, 40), rng.integers(1, 60, 40)
    return Workload.of(arrival_s, prompt_tokens, output_tokens, label=f"{name} {load:g} {seed}")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """The workload of every simulation that is run in this process."""
    seen: list[Workload] = []
    simulate = cells.simulate

    def count(workload: Workload, *args: object, **kwargs: object) -> object:
        seen.append(workload)
        return simulate(workload, *args, **kwargs)

    monkeypatch.setattr(cells, "simulate", count)
    return seen


def test_outcomes_come_back_in_order_and_whole(tmp_path: Path) -> None:
    outcomes = run_cells(CELLS, toy_workload, CONFIG, tmp_path)
    assert [out.cell for out in outcomes] == CELLS
    for out in outcomes:
        records, met = out.requests
        assert list(records["request"]) == list(range(40))
        assert met.mean() == pytest.approx(1.0)
        assert out.metrics.finished_share == 1
        assert out.label == f"toy {out.cell.load:g} {out.cell.seed}"


def test_every_policy_meets_the_same_requests(tmp_path: Path, simulated: list[Workload]) -> None:
    run_cells(CELLS, toy_workload, CONFIG, tmp_path)
    assert len(simulated) == len(CELLS)
    assert len({id(workload) for workload in simulated}) == len(CELLS) // 2


def test_a_second_run_simulates_only_what_is_missing(tmp_path: Path, simulated: list[Workload]) -> None:
    first = run_cells(CELLS, toy_workload, CONFIG, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}
    simulated.clear()
    lost = first[3].path
    lost.with_suffix(".json").unlink()
    again = run_cells(CELLS, toy_workload, CONFIG, tmp_path)
    assert len(simulated) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("*.npz")} == before
    assert [out.metrics for i, out in enumerate(again) if i != 3] == [
        out.metrics for i, out in enumerate(first) if i != 3
    ]


def test_a_cell_without_its_requests_has_the_same_metrics(tmp_path: Path) -> None:
    (whole,) = run_cells(CELLS[:1], toy_workload, CONFIG, tmp_path / "whole")
    (bare,) = run_cells(CELLS[:1], toy_workload, CONFIG, tmp_path / "bare", requests=False)
    timed = {"decision_us_p50": 0.0, "decision_us_p99": 0.0}
    assert replace(bare.metrics, **timed) == replace(whole.metrics, **timed)
    assert bare.tally == whole.tally
    assert [path.suffix for path in (tmp_path / "bare").iterdir()] == [".json"]


def test_another_fingerprint_is_another_cell(tmp_path: Path, simulated: list[Workload]) -> None:
    run_cells(CELLS[:1], toy_workload, CONFIG, tmp_path, fingerprint="a")
    run_cells(CELLS[:1], toy_workload, CONFIG, tmp_path, fingerprint="b")
    assert len(simulated) == 2


def test_an_interrupted_cell_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cells.metrics, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS[:1], toy_workload, CONFIG, tmp_path)
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_processes_change_nothing(tmp_path: Path) -> None:
    here = run_cells(CELLS[:4], toy_workload, CONFIG, tmp_path / "here")
    there = run_cells(CELLS[:4], toy_workload, CONFIG, tmp_path / "there", jobs=2)
    for one, other in zip(here, there, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.slow
def test_a_users_mistake_in_a_process_is_still_the_users(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no policy 'nonsense'"):
        run_cells([Cell("nonsense", "toy", 1.0, 0)], toy_workload, CONFIG, tmp_path, jobs=2)
