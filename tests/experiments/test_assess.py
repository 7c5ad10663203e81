"""The command `experiments.assess`: its files, and invalid input."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import experiments.portfolio as portfolio
from experiments.assess import AssessOptions, run
from experiments.options.parser import parse
from tests.experiments.made_up_folder import RULES, SEEDS, Measured, steady, write_folder
from tests.refusal import refused

LEARNED = "mine=runs/policy.npz"
Rules = Mapping[str, Measured]


def write_portfolio(tmp_path: Path, **options: Any) -> Path:
    """A portfolio of two TBT SLOs whose virtual best is kairos under slo."""
    folders = [
        write_folder(tmp_path / f"validation-{step_budget}-{tbt_slo}", step_budget=step_budget, tbt_slo=tbt_slo,
                     **{"rules": {name: RULES[name] for name in names}, **options})
        for step_budget, names in (("slo", RULES), ("fixed", ["static"]))
        for tbt_slo in (0.03, 0.1)
    ]  # fmt: skip
    arguments = ["--runs", *map(str, folders), "--out", str(tmp_path / "portfolio")]
    portfolio.run(parse(portfolio.PortfolioOptions, "portfolio", "", arguments))
    return tmp_path / "portfolio" / "portfolio.json"


def write_test(path: Path, rules: Rules | None = None, **options: Any) -> Path:
    """A folder on the test seeds with a learned policy that is a little faster than kairos."""
    return write_folder(path, rules or {**RULES, LEARNED: (0.95, 0.994)}, first_seed=SEEDS, **options)


def assess(*arguments: str | Path) -> None:
    run(parse(AssessOptions, "assess", "", list(map(str, arguments))))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "assessment.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_assessment_is_written_with_its_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write_portfolio(tmp_path), tmp_path / "out"
    test = write_test(tmp_path / "test")
    assess("--portfolio", file, "--runs", test, "--policies", "mine", "static", "--out", out)
    rows = rows_of(out)
    assert [(row["policy"], row["workload"], float(row["load"])) for row in rows[:4]] == [
        ("mine", "HPLD", 0.7),
        ("mine", "HPLD", 1.05),
        ("mine", "burst", 0.7),
        ("mine", "burst", 1.05),
    ]
    for row in rows[:4]:
        assert (row["virtual_best"], row["virtual_best_step_budget"]) == ("kairos", "slo")
        assert [float(row[name]) for name in ("ratio", "ratio_low", "ratio_high")] == pytest.approx([0.95] * 3)
        assert float(row["difference"]) == pytest.approx(-0.001)
        assert {row[name] for name in ("counted", "within", "non_inferior", "better")} == {"1"}
    assert {row["within"] for row in rows[4:]} == {"0"}
    printed = capsys.readouterr().out
    assert "4 of the 8 cells of the portfolio" in printed
    assert "| mine | validation | 4 of 4 | 4 of 4 | 4 of 4 | 4 of 4 | 4 of 4 | 0.950" in printed
    assert "| static | HPLD | 0.7 | 100 | kairos | slo |" in printed
    assert (out / "figures" / "ratios.png").read_bytes().startswith(b"\x89PNG\r\n")
    for policy in ("mine", "static"):
        assert (out / "figures" / f"placements-{policy}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "flatters" not in (out / "summary.md").read_text()


def test_the_second_column_is_chosen_on_the_test_seeds(tmp_path: Path) -> None:
    rules = {**RULES, "static": (0.9, 0.995), LEARNED: (0.95, 0.995)}
    test = write_test(tmp_path / "test", rules)
    assess("--portfolio", write_portfolio(tmp_path), "--runs", test, "--policies", "mine", "--out", tmp_path / "out")
    for row in rows_of(tmp_path / "out"):
        assert (row["virtual_best"], row["test_virtual_best"]) == ("kairos", "static")
        assert float(row["test_ratio"]) == pytest.approx(0.95 / 0.9)
        assert (row["within"], row["test_within"]) == ("1", "0")


def test_a_policy_is_assessed_under_the_budget_of_engines(tmp_path: Path) -> None:
    folders = [
        write_test(tmp_path / "slo", {"kairos": (1.0, 1.0), "static": (2.0, 1.0)}),
        write_test(tmp_path / "fixed", {"static": (3.0, 1.0), "arrow": (4.0, 1.0)}, step_budget="fixed"),
    ]
    file, out = write_portfolio(tmp_path), tmp_path / "out"
    assess("--portfolio", file, "--runs", *folders, "--policies", "static", "arrow", "--out", out)
    found = {(row["policy"], row["step_budget"], round(float(row["ratio"]), 6)) for row in rows_of(out)}
    assert found == {("static", "slo", 2.0), ("arrow", "fixed", 4.0)}


def test_the_other_margins_are_wider(tmp_path: Path) -> None:
    test = write_test(tmp_path / "test", {**RULES, LEARNED: (1.025, 0.99)})
    given = ["--portfolio", write_portfolio(tmp_path), "--runs", test, "--policies", "mine"]
    assess(*given, "--out", tmp_path / "main")
    assess(*given, "--margins", "other", "--out", tmp_path / "other")
    assert {row["within"] for row in rows_of(tmp_path / "main")} == {"0"}
    assert {row["within"] for row in rows_of(tmp_path / "other")} == {"1"}


def test_cells_where_rules_miss_slos_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(label: str, _: str, load: float, seed: int) -> Measured:
        found = {**RULES, "mine": (1.5, 1.0)}[label]
        return steady((found[0], found[1] - (0.2 if load > 1 else 0.0)), seed)

    test = write_test(tmp_path / "test", measure=measure)
    assess("--portfolio", write_portfolio(tmp_path), "--runs", test, "--policies", "mine", "--out", tmp_path / "out")
    assert [row["counted"] for row in rows_of(tmp_path / "out")] == ["1", "0"] * 2
    assert "| mine | validation | 2 of 4 | 0 of 2 |" in capsys.readouterr().out
    assert "## Cells that are not counted" in (tmp_path / "out" / "summary.md").read_text()


def test_common_seeds_are_noticed(tmp_path: Path) -> None:
    file = write_portfolio(tmp_path)
    assess(
        "--portfolio", file, "--runs", tmp_path / "validation-slo-0.1", "--policies", "static", "--out", tmp_path / "o"
    )
    assert "6 of the same seeds, which flatters the rules" in (tmp_path / "o" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("rules", "options", "label", "reasons"),
    [
        (None, {}, "mien", ["unknown policy label 'mien'", "did you mean 'mine'?"]),
        (None, {"cluster": "1P3D"}, "mine", ["--cluster: 2P2D, 1P3D"]),
        (None, {"profile": "other"}, "mine", ["--profile: toy, other"]),
        (None, {"loads": [0.9]}, "mine", ["has no cell HPLD, load 0.9, TBT SLO 100 ms", "experiments.portfolio"]),
        (None, {"rate_rps": 6.0}, "mine", ["HPLD, load 0.7, TBT SLO 100 ms is 3.5 requests/s there, and 4.2"]),
        (None, {"seeds": 1}, "mine", ["1 seed; 2 or more are needed"]),
        ({LEARNED: (1.0, 1.0)}, {}, "mine", ["virtual best of HPLD, load 0.7, TBT SLO 100 ms: kairos under", "slo"]),
        ({LEARNED: (1.0, 1.0), "kairos=kairos:cap=2": (1.0, 1.0)}, {}, "mine", ["TBT SLO 100 ms: kairos under"]),
    ],
)
def test_invalid_input_is_named(
    tmp_path: Path, rules: Rules | None, options: dict[str, Any], label: str, reasons: list[str]
) -> None:
    file, test, out = write_portfolio(tmp_path), write_test(tmp_path / "test", rules, **options), tmp_path / "out"
    with refused(*reasons, out=out):
        assess("--portfolio", file, "--runs", test, "--policies", label, "--out", out)


def test_a_policy_that_a_cell_lacks_is_named(tmp_path: Path) -> None:
    file, out = write_portfolio(tmp_path), tmp_path / "out"
    folders = [write_test(tmp_path / "a"), write_test(tmp_path / "b", RULES, tbt_slo=0.03)]
    with refused("no folder has mine on HPLD, load 0.7, TBT SLO 30 ms", out=out):
        assess("--portfolio", file, "--runs", *folders, "--policies", "mine", "--out", out)


def test_a_label_of_two_policies_is_refused(tmp_path: Path) -> None:
    file, out = write_portfolio(tmp_path), tmp_path / "out"
    folders = [write_test(tmp_path / "a"), write_test(tmp_path / "b", {"mine=runs/other.npz": (1.0, 1.0)})]
    with refused("mine is mine=runs/policy.npz and mine=runs/other.npz on HPLD", out=out):
        assess("--portfolio", file, "--runs", *folders, "--policies", "mine", "--out", out)


def test_missing_files_are_named(tmp_path: Path) -> None:
    file, test, out = write_portfolio(tmp_path), write_test(tmp_path / "test"), tmp_path / "out"
    with refused("none.json: no such file; give the portfolio.json", out=out):
        assess("--portfolio", tmp_path / "none.json", "--runs", test, "--policies", "mine", "--out", out)
    with refused("none: no such folder", out=out):
        assess("--portfolio", file, "--runs", tmp_path / "none", "--policies", "mine", "--out", out)
    (test / "cells.csv").unlink()
    with refused("no cells.csv", out=out):
        assess("--portfolio", file, "--runs", test, "--policies", "mine", "--out", out)
