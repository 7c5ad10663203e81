"""The text of a report on results whose answer is known."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.analysis.comparison import Groups
from experiments.analysis.csv_files import CELL_COLUMNS
from experiments.analysis.outcome import Outcome
from experiments.reports import comparison_tables as tables
from experiments.reports import ranking_tables as ranking
from experiments.reports.comparison_report import write_comparison
from experiments.reports.ranking_tables import CRITERIA, findings
from experiments.runs.cache import Cache
from experiments.runs.trial import run_trials
from tests.experiments.made_up import results, trial

P95, ATTAINMENT = CRITERIA


# ---- the result ------------------------------------------------------------------------------------------------------


def test_the_result_says_by_how_much() -> None:
    # P95 at load 0.9, mean over seeds 0 to 7: 1.935 s against 3.935 s.
    text = findings(results({"static": 3.0, "kairos": 1.0}))
    assert "**Lowest TTFT P95**, or tied with it (of 2 cells): `kairos` in 2." in text
    assert "Lowest TTFT P95: `kairos`, 1,935 [" in text
    assert "-50.8 [" in text
    assert "+20.0 [+20.0, +20.0] points against `static`" in text


def test_a_clairvoyant_policy_is_never_best_and_always_shown() -> None:
    groups = results({"static": 3.0, "kairos": 2.0, "lookahead": 1.0})
    text = findings(groups)
    assert text.count("Lowest TTFT P95: `kairos`, 2,") == 2
    assert text.count("For comparison, `lookahead (clairvoyant)` has 1,") == 2
    assert "`lookahead (clairvoyant)` in" not in text
    assert "| `lookahead (clairvoyant)` | 1," in ranking.matrix(groups, P95)


def test_a_single_policy_has_no_result_to_compare() -> None:
    assert findings(results({"kairos": 1.0})) == ""


@pytest.mark.parametrize("seeds", [2, 4])
def test_with_few_seeds_the_result_claims_no_tie(seeds: int) -> None:
    text = findings(results({"static": 3.0, "kairos": 3.0001}, seeds=seeds))
    assert "too few seeds to tell ties" in text
    assert "tied with it" not in text


def test_with_many_seeds_equals_are_tied() -> None:
    assert "tied with it: `kairos`." in findings(results({"static": 3.0, "kairos": 3.0}))


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_the_matrix_is_in_order_and_marks_the_best() -> None:
    groups = results({"static": 3.0, "kairos": 1.0, "random": 2.0}, workloads=("v", "w"))
    header, _, *rows = ranking.matrix(groups, P95).splitlines()
    assert header == "| policy | v, load 0.9 | w, load 0.9 |"
    assert [row.split("`")[1] for row in rows] == ["kairos", "random", "static"] == groups.ranked
    assert [row.count("**") for row in rows] == [4, 0, 0]
    assert ranking.best(groups).count("`kairos`") == 2 * 4


def test_verdicts_stand_next_to_the_intervals_they_go_by() -> None:
    groups = results({"static": 3.0, "kairos": 1.0, "random": 3.0})
    _, _, *rows = tables.per_policy(groups, tables.DIFFERENCES, "static").splitlines()
    assert len(rows) == 2 * 2
    for row in rows:
        assert row.count("| better |") == (2 if "`kairos`" in row else 0)
        assert row.count("| tied |") == (2 if "`random`" in row else 0)
    (row,) = [row for row in rows if "`kairos`" in row and row.startswith("| 0.9")]
    assert "-50.8 [" in row


def test_tables_over_cells_need_several_cells_and_seeds() -> None:
    policies = {"static": 3.0, "kairos": 1.0}
    assert ranking.over_all(results(policies, loads=(1.0,))) == ""
    assert ranking.over_all(results(policies, seeds=1, loads=(1.0,))) == ""
    assert ranking.over_virtual_best(results(policies, loads=(1.0,))) == ""
    several = results(policies)
    assert ranking.over_all(several).count("`kairos`") == 1
    # The virtual best is kairos everywhere.
    kairos, static = ranking.over_virtual_best(several).splitlines()[2:]
    assert kairos.startswith("| `kairos` | 1.000 [1.000, 1.000] | 2 of 2 | 2 of 2 | +0.0 |")
    assert static.startswith("| `static` | ")
    assert "| 0 of 2 | 0 of 2 |" in static


def test_without_a_rule_there_is_no_virtual_best() -> None:
    assert ranking.over_virtual_best(results({"mine=a/policy.npz": 1.0, "lookahead": 0.5})) == ""


# ---- a whole report --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    trials = [
        trial(policy, load, seed) for load in (0.5, 1.0) for seed in (0, 1) for policy in ("static", "kairos", "random")
    ]
    return run_trials(trials, Cache(tmp_path_factory.mktemp("cache")))


def report(outcomes: Sequence[Outcome], folder: Path) -> str:
    return write_comparison(outcomes, "A title", ["about *this*"], {"toy": 2.0}, "load", folder, made_by="- me")


@pytest.mark.slow
def test_a_summary_has_the_result_first_and_all_sections(outcomes: list[Outcome], tmp_path: Path) -> None:
    printed = report(outcomes, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    parts = ("3 policies, 1 workload, 2 loads, 2 seeds.", "## Result", "## Overview", "about *this*", "## toy", "- me")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for heading in ("results", "against `static`", "percentiles", "TTFT around P95", "deflection", "run health"):
        assert f"### toy: {heading}" in text
    assert "`static`, paired" in text
    assert "**" not in printed
    assert "`" not in printed
    assert (tmp_path / "cells.csv").read_text().splitlines()[0] == ",".join(CELL_COLUMNS)


@pytest.mark.slow
def test_one_policy_alone_is_compared_with_nothing(outcomes: list[Outcome], tmp_path: Path) -> None:
    alone = [outcome for outcome in outcomes if outcome.policy.label == "kairos" and outcome.load == 1.0]
    report(alone, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert "## Result" not in text
    assert "paired on the same requests" not in text
    assert Groups.of(alone).base == "kairos"
