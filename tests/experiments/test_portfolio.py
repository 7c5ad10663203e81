"""The command `experiments.portfolio`: its files, and invalid input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import experiments.compare as compare
from experiments.options.parser import parse
from experiments.portfolio import PortfolioOptions, run
from experiments.runs.saturation import Knee
from tests.experiments.made_up_folder import write_folder
from tests.refusal import refused


def choose(*arguments: str | Path) -> None:
    run(parse(PortfolioOptions, "portfolio", "", list(map(str, arguments))))


def test_the_portfolio_names_the_best_of_both_step_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        write_folder(tmp_path / "slo"),
        write_folder(tmp_path / "fixed", {"static": (0.7, 1.0)}, step_budget="fixed"),
        write_folder(tmp_path / "strict", tbt_slo=0.03),
    ]
    choose("--runs", *folders, "--out", tmp_path / "out")
    contents = json.loads((tmp_path / "out" / "portfolio.json").read_text())
    assert (contents["profile"], contents["cluster"], contents["seeds"]) == ("toy", "2P2D", list(range(6)))
    assert contents["command"].startswith("python -m experiments.portfolio --runs")
    firsts = [(one["tbt_slo_s"], *list(one["candidates"][0].values())[:2]) for one in contents["cells"]]
    assert firsts == [(0.03, "kairos", "slo")] * 4 + [(0.1, "static", "fixed")] * 4
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "| HPLD | 0.7 | 3.50 | `static` | fixed | 875.0 | 100.0 | `kairos` slo +42.9 |" in text
    printed = capsys.readouterr().out
    assert "## TBT SLO 100 ms" in printed
    assert "| HPLD | 0.7 | 3.50 | static | fixed | 875.0 | 100.0 | kairos slo +42.9 |" in printed


def without_cells(path: Path) -> Path:
    (write_folder(path) / "cells.csv").unlink()
    return path


def of_tune(path: Path) -> Path:
    path.mkdir()
    (path / "command.json").write_text('{"command": "tune", "options": {"seeds": 2}}')
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path, "no such folder; give finished folders of experiments.compare"),
        (without_cells, "no cells.csv"),
        (of_tune, "not a file that experiments.compare wrote"),
        (lambda path: write_folder(path, cluster="1P3D"), "--cluster: 2P2D, 1P3D"),
        (lambda path: write_folder(path, profile="other"), "--profile: toy, other"),
    ],
)
def test_invalid_folders_are_named(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    good, bad = write_folder(tmp_path / "good"), make(tmp_path / "bad")
    with refused(str(bad), reason, out=tmp_path / "out"):
        choose("--runs", good, bad, "--out", tmp_path / "out")


def test_a_folder_of_another_command_is_not_written_into(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    before = sorted(path.read_bytes() for path in folder.iterdir())
    with refused("holds the results of experiments.compare"):
        choose("--runs", folder, "--out", folder)
    assert sorted(path.read_bytes() for path in folder.iterdir()) == before


@pytest.mark.slow
def test_the_portfolio_reads_what_compare_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.compare.knees", lambda *_: {"burst": Knee(8.0, False, {8.0: [1.0]})})
    given = "--policies static few=kairos:cap=1 --workload burst --requests 40 --seeds 2 --loads 0.7"
    out = tmp_path / "table"
    compare.run(parse(compare.CompareOptions, "compare", "", [*given.split(), "--out", str(out)]))
    choose("--runs", out, "--out", tmp_path / "out")
    (cell,) = json.loads((tmp_path / "out" / "portfolio.json").read_text())["cells"]
    assert (cell["workload"], cell["load"], cell["rate_rps"]) == ("burst", 0.7, pytest.approx(5.6))
    assert {one["policy"] for one in cell["candidates"]} <= {"static", "few=kairos:cap=1"}
