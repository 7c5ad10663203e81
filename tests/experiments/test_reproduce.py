"""The command that compares claims with runs, end to end on few requests."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import reproduce
from experiments.options.parser import parse
from experiments.reproduce import ReproduceOptions, run
from experiments.runs import saturation, trial, tuning
from tests.experiments.short_knees import shorten_knees
from tests.refusal import refused

SMALL = "--profiles a100-qwen3-8b --connectors rdma --families burst --policies round-robin --loads 0.8 1.2"
COMMAND = f"{SMALL} --requests 40 --span 0.1 --seeds 2"


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "SWEEP", (0.5, 1.2))
        patch.setattr(reproduce, "SETTINGS", 3)
        shorten_knees(patch, 40, span_s=0.1)
        yield


def read(arguments: str, out: Path) -> ReproduceOptions:
    return parse(ReproduceOptions, "reproduce", "", [*arguments.split(), "--out", str(out)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduce") / "out"
    run(read(COMMAND, out))
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_only_the_reason_of_a_claim_that_agrees_may_be_empty(finished: Path) -> None:
    rows = rows_of(finished / "claims.csv")
    assert len(rows) == 2 + 2 * 2 * 2 + 1 + 3
    assert all(row["claim"] and row["here"] and row["agrees"] for row in rows)
    assert all(row["why"] for row in rows if row["agrees"] != "yes")


@pytest.mark.slow
def test_every_cell_is_there_and_policies_share_requests(finished: Path) -> None:
    rows = rows_of(finished / "cells.csv")
    on_rdma = [row for row in rows if row["cluster"] == "2P2D" and row["report_age_s"] == "0.1"]
    swept = ("static", "kairos", "kairos-tuned")
    assert {(row["policy"], row["load"]) for row in on_rdma if row["policy"] in swept} == {
        (policy, load) for policy in swept for load in ("0.5", "0.8", "1.2")
    }
    assert {row["cluster"] for row in rows} == {"2P2D", "1P3D", "3P1D", "2P2D, one decode node at 0.6"}
    assert {row["report_age_s"] for row in rows} == {"0.0", "0.05", "0.1", "0.3", "1.0"}
    rate: dict[tuple[str, str, str], str] = {}
    for row in rows:
        key = (row["cluster"], row["load"], row["seed"])
        assert rate.setdefault(key, row["rate_rps"]) == row["rate_rps"]


@pytest.mark.slow
def test_the_page_shows_tables_figures_and_its_command(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    parts = ("## Claims", "## Variants of `kairos`", "1P3D", "one decode node at 0.6", "## Loads", COMMAND, "digest")
    for part in parts:
        assert part in text
    figures = {path.name for path in (finished / "figures").iterdir()}
    others = {"breakdown.png", "execution_share.png", "p95_by_load.png", "added_step_time.png"}
    assert figures == {*others, "ablation-a100-qwen3-8b__rdma.png"}
    assert all(name in text for name in figures)
    assert (finished / "report.html").read_text().count("data:image/png") == len(figures)


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (finished / name).read_text() for name in ("claims.csv", "cells.csv", "summary.md")}
    for module in (trial, saturation, tuning):
        monkeypatch.setattr(module, "simulate", None)
    run(read(COMMAND, finished))
    assert {name: (finished / name).read_text() for name in before} == before


@pytest.mark.slow
def test_a_cluster_on_which_static_has_no_knee_is_left_out_and_said(tmp_path: Path) -> None:
    slow = COMMAND.replace("--connectors rdma", "--connectors nixl-default-ucx").replace("burst", "HPHD")
    run(read(f"{slow} --ttft-slo 0.05", tmp_path))
    assert "none: it misses its target at every rate" in (tmp_path / "summary.md").read_text()
    assert len(rows_of(tmp_path / "claims.csv")) == 3


@pytest.mark.slow
def test_one_seed_and_a_family_without_bursts_are_enough(tmp_path: Path) -> None:
    run(read(COMMAND.replace("burst", "LPLD").replace("--seeds 2", "--seeds 1"), tmp_path))
    rows = rows_of(tmp_path / "claims.csv")
    assert any(row["claim"].startswith("P95 TTFT up to") for row in rows)
    assert "## Variants of `kairos`: burst" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--policies nonsense", "unknown policy 'nonsense'"),
        ("--policies kairos-tuned=kairos", "two policies are called kairos-tuned"),
        ("--families nonsense", "unknown workload 'nonsense'"),
        ("--profiles nonsense", "no profile named 'nonsense'"),
        ("--connectors nonsense", "no connector named 'nonsense'"),
        ("--loads 0", "--loads 0"),
        ("--seeds 0", "--seeds 0"),
        ("--span inf", "--span inf"),
    ],
)
def test_invalid_options_are_named_and_nothing_is_written(arguments: str, message: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with refused(message, out=out):
        read(arguments, out)


def test_static_and_kairos_are_always_among_the_rules(tmp_path: Path) -> None:
    rules = read("--policies mooncake static", tmp_path).rules
    assert [spec.label for spec in rules] == ["static", "mooncake", "kairos"]


@pytest.mark.slow
def test_a_bad_command_line_gives_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.reproduce", "--profiles", "nonsense"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(root)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
