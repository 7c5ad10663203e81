"""The command that holds claims against runs, end to end on few requests, and its variants of kairos."""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import policies
from experiments import cells, knee
from experiments.reproduce.ablations import variants
from experiments.reproduce.command import parse, reproduce
from experiments.reproduce.settings import every_machine, stressed
from experiments.tuning import tuned
from hardware_profiles import InputError

SMALL = "--profiles a100-qwen3-8b --connectors rdma --families burst --policies static --loads 0.8 1.2 --requests 40"
COMMAND = f"{SMALL} --span 0.1 --seeds 2"


@pytest.fixture(scope="module", autouse=True)
def _same_code() -> Iterator[None]:
    """These tests are about the command; someone may edit the code while they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.reproduce.command.simulation_digest", lambda: "code")
        patch.setattr("experiments.reproduce.command.SWEEP", (0.5, 1.2))
        patch.setattr("experiments.reproduce.command.tuned", partial(tuned, count=3))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduce") / "out"
    reproduce(parse([*COMMAND.split(), "--out", str(out)]))
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_variant_is_a_policy_and_each_knob_has_one_default() -> None:
    for variant in variants():
        assert policies.make(variant.policy)
    defaults = Counter(variant.knob for variant in variants() if "default" in variant.value)
    knobs = {variant.knob for variant in variants()} - {"share deflected at random"}
    assert defaults == dict.fromkeys(knobs, 1)
    assert all(variant.policy == "kairos" for variant in variants() if "default" in variant.value)


def test_claims_are_held_against_the_papers_engine_with_a_fixed_step_budget() -> None:
    plain = every_machine(["a100-qwen3-8b"], ["rdma"])
    assert {setting.config.step_budget for setting in [*plain, *stressed(plain)]} == {"fixed"}


@pytest.mark.slow
def test_the_table_of_claims_has_no_empty_cell_but_reasons(finished: Path) -> None:
    rows = rows_of(finished / "claims.csv")
    assert len(rows) == 2 + 2 * 2 * 2 + 1 + 3
    assert all(row["claim"] and row["here"] and row["agrees"] for row in rows)
    assert all(row["why"] for row in rows if row["agrees"] != "yes")


@pytest.mark.slow
def test_cells_are_all_there_and_policies_share_requests(finished: Path) -> None:
    rows = rows_of(finished / "cells.csv")
    on_rdma = [row for row in rows if row["cluster"] == "2P2D" and row["report_age_s"] == "0.1"]
    assert {
        (row["policy"], row["load"]) for row in on_rdma if row["policy"] in ("static", "kairos", "kairos-tuned")
    } == {(policy, load) for policy in ("static", "kairos", "kairos-tuned") for load in ("0.5", "0.8", "1.2")}
    assert {row["cluster"] for row in rows} == {"2P2D", "1P3D", "3P1D", "2P2D, one decode node at 0.6"}
    assert {row["report_age_s"] for row in rows} == {"0.0", "0.05", "0.1", "0.3", "1.0"}
    rate = {}
    for row in rows:
        key = (row["cluster"], row["load"], row["seed"])
        assert rate.setdefault(key, row["rate_rps"]) == row["rate_rps"]


@pytest.mark.slow
def test_the_page_shows_tables_figures_and_where_it_came_from(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    for part in ("## Claims", "## Parts of `kairos`", "1P3D", "one decode node at 0.6", "## Loads", COMMAND, "digest"):
        assert part in text
    figures = {path.name for path in (finished / "figures").iterdir()}
    others = {"breakdown.png", "execution_share.png", "p95_by_load.png", "added_step_time.png"}
    assert figures == {*others, "ablation-a100-qwen3-8b__rdma.png"}
    assert all(name in text for name in figures)
    assert (finished / "report.html").read_text().count("data:image/png") == len(figures)


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (finished / name).read_text() for name in ("claims.csv", "cells.csv")}
    for module in (cells, knee):
        monkeypatch.setattr(module, "simulate", None)
    monkeypatch.setattr("experiments.reproduce.command.tuned", None)
    reproduce(parse([*COMMAND.split(), "--out", str(finished)]))
    assert {name: (finished / name).read_text() for name in before} == before


@pytest.mark.slow
def test_where_static_has_no_knee_is_left_out_and_said(tmp_path: Path) -> None:
    slow = COMMAND.replace("--connectors rdma", "--connectors nixl-default-ucx")
    reproduce(parse([*slow.replace("burst", "HPHD").split(), "--ttft-slo", "0.05", "--out", str(tmp_path)]))
    assert "none: it misses its target at every rate" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense", "no policy 'nonsense'"),
        ("--families nonsense", "unknown workload 'nonsense'"),
        ("--profiles nonsense", "no profile named 'nonsense'"),
        ("--connectors nonsense", "no connector named 'nonsense'"),
        ("--loads 0", "--loads 0"),
        ("--seeds 0", "--seeds 0"),
        ("--span inf", "--span inf"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        reproduce(parse([*arguments.split(), "--out", str(out)]))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiments.reproduce"],
        ["experiments.reproduce", "--out", "here", "--profiles", "nonsense"],
        ["experiments.capacity", "--splits", "2D2P"],
    ],
)
@pytest.mark.slow
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", *arguments]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(root)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
