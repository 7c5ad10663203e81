"""The export command: a linear policy that other commands can run, the network as ONNX, and invalid input."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from agents.linear_policy import read_linear
from experiments import compare, export
from experiments.compare import CompareOptions
from experiments.export import ExportOptions
from experiments.options.parser import parse
from tests.experiments.short_knees import shorten_knees
from tests.refusal import refused

SMALL = "--workload burst HPLD --loads 0.6 0.9 --tbt-slos 0.05 --requests 150"


def run(given: str, out: Path) -> None:
    export.run(parse(ExportOptions, "export", "", [*given.split(), "--out", str(out)]))


@pytest.mark.slow
def test_the_linear_policy_is_one_that_compare_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_knees(monkeypatch, 60, seeds=(900_001, 900_002))
    out = tmp_path / "out"
    run(SMALL, out)
    printed = capsys.readouterr().out
    assert "linear.json imitates 450 placements; of 150 others" in printed
    assert read_linear(out / "linear.json")
    assert (out / "network.onnx").exists() == (find_spec("onnx") is not None)
    first = (out / "linear.json").read_bytes()
    run(SMALL, out)
    assert "4 of 4 runs are finished already" in capsys.readouterr().err
    assert (out / "linear.json").read_bytes() == first
    given = f"--policies static linear={out}/linear.json --workload burst --loads 0.7 --seeds 1 --requests 60"
    compare.run(parse(CompareOptions, "compare", "", [*given.split(), "--out", str(tmp_path / "compared")]))
    rows = (tmp_path / "compared" / "cells.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["static", "linear"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--policy kairos", "--policy kairos: must be ppo, or the policy.npz of experiments.train"),
        ("--policy nothing.npz", "nothing.npz"),
        ("--workload bursts", "bursts"),
        ("--tbt-slos 0", "--tbt-slos"),
    ],
)
def test_invalid_input_is_named(given: str, says: str, tmp_path: Path) -> None:
    with refused(says, out=tmp_path / "out"):
        run(given, tmp_path / "out")


def test_without_onnx_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    monkeypatch.setattr(export, "_imitate", lambda *_: None)
    run("", tmp_path / "out")
    assert "without the package onnx no network.onnx is written" in capsys.readouterr().err
    assert not (tmp_path / "out" / "network.onnx").exists()
