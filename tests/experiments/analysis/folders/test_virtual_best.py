"""The virtual best: the rule of the protocol on a table by hand, laws, and files that come back as they were."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis import ranking
from experiments.analysis.comparison import Groups
from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.folders.virtual_best import MOST_RANKED, Candidate, Cell, Portfolio, gather, ranked
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from policies import PolicySpec
from tests.experiments.made_up import outcome
from tests.experiments.made_up_folder import Measured, write_folder
from tests.refusal import refused

LEARNED, BOUND = "mine=runs/policy.npz", "lookahead"
NAMES = ("static", "kairos", "kairos:cap=1", "colocated", "arrow", "taichi", "llm-d", LEARNED, BOUND)


def candidate(policy: str, p95_s: float, attainment: float, step_budget: str = "slo") -> Candidate:
    return Candidate(PolicySpec.parse(policy), step_budget, np.full(3, p95_s), np.full(3, attainment))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return [candidate(name, draw(st.floats(0.1, 9)), draw(st.floats(0.8, 1)), draw(st.sampled_from(["slo", "fixed"])))
            for name in names]  # fmt: skip


def test_a_table_by_hand() -> None:
    table = [
        candidate("static", 2.0, 0.97),
        candidate("kairos", 0.7, 0.962),
        candidate("kairos", 0.9, 0.965, "fixed"),
        candidate("colocated", 0.5, 0.95),  # fast, but more than a point below static
        candidate(LEARNED, 0.1, 1.0),  # no rule, so it neither wins nor sets the highest attainment
        candidate(BOUND, 0.1, 1.0),
    ]
    found = [(one.policy.label, one.step_budget) for one in ranked(table)]
    assert found == [("kairos", "slo"), ("kairos", "fixed"), ("static", "slo")]


@given(candidates())
def test_the_ranking_is_of_rules_near_the_highest_attainment_by_p95(table: list[Candidate]) -> None:
    found = ranked(table)
    rules = [one for one in table if one.policy.label not in ("mine", "lookahead (clairvoyant)")]
    assert bool(found) == bool(rules)
    enough = max((one.mean_attainment for one in rules), default=0.0) - ATTAINMENT_MARGIN
    assert {id(one) for one in found} == {id(one) for one in rules if one.mean_attainment >= enough}
    assert [one.mean_p95_s for one in found] == sorted(one.mean_p95_s for one in found)


@given(candidates())
def test_the_virtual_best_is_that_of_compare_if_there_is_one_budget(table: list[Candidate]) -> None:
    runs = [
        outcome(str(one.policy), seed=seed, ttft_p95_s=one.p95_s[seed], slo_attainment=one.attainment[seed])
        for one in table
        for seed in range(3)
    ]
    (group,) = Groups.of(runs).values()
    expected, found = ranking.virtual_best(group), ranked(table)
    assert (expected.policy if expected else None) == (found[0].policy if found else None)


def write_both_budgets(tmp_path: Path) -> list[Folder]:
    """Rules under both step budgets; LPLD is in a folder for itself."""
    rules: dict[str, dict[str, Measured]] = {
        "slo": {"static": (2.0, 1.0), "kairos=kairos:alpha=1.5": (1.0, 0.995), LEARNED: (0.1, 1.0)},
        "fixed": {"static": (2.0, 1.0), "kairos=kairos:alpha=1.1": (0.8, 0.985), "colocated": (0.9, 0.995)},
    }
    return [
        Folder.read(write_folder(tmp_path / f"{step_budget}-{workload}", rules[step_budget], workload=[workload],
                                 step_budget=step_budget, rate_rps=rate_rps))
        for step_budget in rules
        for workload, rate_rps in (("burst", 5.0), ("LPLD", 7.0))
    ]  # fmt: skip


def test_a_candidate_is_a_rule_with_its_parameters_and_step_budget(tmp_path: Path) -> None:
    portfolio = Portfolio.of(write_both_budgets(tmp_path))
    assert list(portfolio.cells) == [
        Cell("burst", 0.7, 0.1),
        Cell("burst", 1.05, 0.1),
        Cell("LPLD", 0.7, 0.1),
        Cell("LPLD", 1.05, 0.1),
    ]
    cell = portfolio.cells[Cell("LPLD", 1.05, 0.1)]
    assert cell.rate_rps == pytest.approx(1.05 * 7.0)
    assert [(one.policy, one.step_budget) for one in cell.candidates] == [
        ("colocated", "fixed"),
        ("kairos=kairos:alpha=1.5", "slo"),
        ("static", "slo"),
        ("static", "fixed"),
    ]
    assert cell.candidates[0].ttft_p95_s == pytest.approx(0.9 * 1.25)


def test_a_portfolio_comes_back_as_it_was_written(tmp_path: Path) -> None:
    portfolio = Portfolio.of(write_both_budgets(tmp_path))
    path = tmp_path / "portfolio.json"
    path.write_text(json.dumps(portfolio.contents()))
    found = Portfolio.read(path)
    assert found.cells == portfolio.cells
    assert (found.options, list(found.seeds)) == (portfolio.options, list(portfolio.seeds))


def test_a_portfolio_keeps_few_candidates(tmp_path: Path) -> None:
    rules = {f"kairos:cap={cap}": (1.0 + cap, 1.0) for cap in range(1, MOST_RANKED + 3)}
    portfolio = Portfolio.of([Folder.read(write_folder(tmp_path / "a", rules))])
    for cell in portfolio.cells.values():
        assert [one.policy for one in cell.candidates] == list(rules)[:MOST_RANKED]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cluster": "1P3D"}, "--cluster: 2P2D, 1P3D"),
        ({"profile": "other"}, "--profile: toy, other"),
        ({"first_seed": 7}, "--first-seed: 0, 7"),
        ({"rate_rps": 6.0}, "run of static, HPLD, load 0.7, seed 0 had other requests than in"),
        (
            {"rules": {"static": (2.5, 1.0)}, "step_budget": "slo"},
            "static on HPLD, load 0.7, TBT SLO 100 ms had another",
        ),
    ],
)
def test_folders_that_do_not_agree_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    given = {"step_budget": "fixed", **options}
    folders = [Folder.read(write_folder(tmp_path / "a")), Folder.read(write_folder(tmp_path / "b", **given))]
    with refused(reason, str(tmp_path / "b")):
        gather(folders)


def test_a_cell_without_a_rule_is_refused(tmp_path: Path) -> None:
    folder = Folder.read(write_folder(tmp_path / "a", {LEARNED: (1.0, 1.0)}))
    with refused("HPLD, load 0.7, TBT SLO 100 ms: no folder has a rule"):
        Portfolio.of([folder])


def test_a_folder_without_its_knees_is_refused(tmp_path: Path) -> None:
    (write_folder(tmp_path / "a") / "knees.json").unlink()
    with refused("no knees.json", "experiments.compare"):
        gather([Folder.read(tmp_path / "a")])


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": []}', '{"cells": [{"workload": "burst"}]}'])
def test_a_damaged_portfolio_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "portfolio.json").write_text(text)
    with refused("portfolio.json: not a file that experiments.portfolio wrote"):
        Portfolio.read(tmp_path / "portfolio.json")


def test_the_portfolio_that_ships_has_the_cells_of_the_protocol() -> None:
    found = Portfolio.read(Path("shipped"))
    assert len(found.cells) == 5 * 5 * 4
    assert {cell.tbt_slo_s for cell in found.cells} == {0.025, 0.03, 0.05, 0.1}
    assert min(found.seeds) >= 1_000_000
    for cell in found.cells.values():
        best, *others = cell.candidates
        assert all(one.ttft_p95_s >= best.ttft_p95_s for one in others)
