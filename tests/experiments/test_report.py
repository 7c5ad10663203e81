"""What a report says of results whose answer is known."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

import policies
from experiments.cells import Cell, Outcome
from experiments.groups import Groups, base_of, grouped, highlighted, ranked, shown
from experiments.leaders import ATTAINMENT, P95, came_out, leaders
from experiments.metrics import Metrics, as_array
from experiments.overview import best, matrix
from experiments.overview_figure import overview
from experiments.printed import listing, share_of
from experiments.report import summary
from experiments.statistics import Interval
from experiments.tally import Tally
from tests.experiments.made_up import record

SEEDS = 8


def outcome(cell: Cell, ttft_p95_s: float, slo_attainment: float) -> Outcome:
    """A run of which only P95 TTFT and attainment matter."""
    values = dict.fromkeys((field.name for field in fields(Metrics)), 1)
    metrics = Metrics(**{**values, "ttft_p95_s": ttft_p95_s, "slo_attainment": slo_attainment})
    requests = as_array([record(0, float(cell.seed), [0.1, 0.2, 0.3, 0.4])])
    return Outcome(cell, metrics, Tally.of(requests, 100.0), "made up", 5.0, 100.0, Path("nowhere.npz"))


def results(
    p95_s: Mapping[str, float], loads: tuple[float, ...] = (0.5, 0.9), works: tuple[str, ...] = ("w",)
) -> Groups:
    """Policies with these P95 TTFTs, a little more with each seed and load, and an attainment that falls with it."""
    return grouped(
        [
            outcome(Cell(policy, work, load, seed), value + 0.01 * seed + load, 1 - (value + load) / 10)
            for work in works
            for load in loads
            for seed in range(SEEDS)
            for policy, value in p95_s.items()
        ]
    )


def test_the_best_is_best_and_those_that_seeds_do_not_tell_apart_are_named() -> None:
    groups = results({"static": 3.0, "kairos": 1.0, "random": 2.0})
    for group in groups.values():
        assert leaders(group, P95) == ("kairos", [])
        assert leaders(group, ATTAINMENT) == ("kairos", [])
    by_luck = [
        outcome(Cell(policy, "w", 1.0, seed), 1.0 + shift * (-1) ** seed, 0.9)
        for seed in range(SEEDS)
        for policy, shift in (("static", 0.0), ("kairos", 0.5), ("random", 0.3))
    ]
    (group,) = grouped(by_luck).values()
    assert leaders(group, P95) == ("static", ["kairos", "random"])


def test_of_equals_in_attainment_the_one_with_the_lower_p95_is_best() -> None:
    rows = [
        outcome(Cell(policy, "w", 1.0, seed), p95_s, 1.0)
        for seed in range(SEEDS)
        for policy, p95_s in (("static", 2.0), ("kairos", 1.0))
    ]
    (group,) = grouped(rows).values()
    assert leaders(group, ATTAINMENT) == ("kairos", ["static"])


def test_a_clairvoyant_policy_is_never_best_and_always_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "clairvoyant", lambda name: name == "random")
    groups = results({"static": 3.0, "kairos": 2.0, "random": 1.0})
    assert all(leaders(group, P95).best == "kairos" for group in groups.values())
    text = came_out(groups)
    assert text.count("Lowest P95 TTFT `kairos`, 2,") == 2
    assert text.count("For comparison `random` 1,") == 2
    assert "`random` in" not in text
    assert "| `random` | 1," in matrix(groups, P95)


def test_what_came_out_says_by_how_much() -> None:
    # P95 at load 0.9, mean over seeds 0 to 7: 1.935 s against 3.935 s.
    text = came_out(results({"static": 3.0, "kairos": 1.0}))
    assert "`kairos` in 2." in text
    assert "Lowest P95 TTFT `kairos`, 1,935 [" in text
    assert "-50.8 [" in text
    assert "+20.0 [+20.0, +20.0] points against `static`" in text


def test_an_overview_shows_each_workload_once_or_one_at_all_its_loads() -> None:
    one = results({"static": 1.0}, loads=(1.2, 0.5, 0.9))
    assert list(shown(one)) == [("w", 0.5), ("w", 0.9), ("w", 1.2)]
    several = results({"static": 1.0}, loads=(1.2, 0.5, 0.9), works=("b", "a"))
    assert list(shown(several)) == [("b", 0.9), ("a", 0.9)]
    assert list(shown(results({"static": 1.0}, loads=(1.2, 1.1), works=("a", "b")))) == [("a", 1.1), ("b", 1.1)]


def test_the_matrix_is_in_order_and_marks_the_leaders() -> None:
    groups = results({"static": 3.0, "kairos": 1.0, "random": 2.0}, works=("v", "w"))
    header, _, *rows = matrix(groups, P95).splitlines()
    assert header == "| policy | v, load 0.9 | w, load 0.9 |"
    assert [row.split("`")[1] for row in rows] == ["kairos", "random", "static"] == ranked(groups)
    assert [row.count("**") for row in rows] == [4, 0, 0]
    assert best(groups).count("`kairos`") == 2 * 4


def test_a_crowd_is_cut_to_the_base_and_the_best() -> None:
    names = ["kairos", "random", "round-robin", "always-local", "shortest-ttft", "a:B", "c:D", "e:F", "static"]
    groups = results({name: 9.0 - rank for rank, name in enumerate(names[:-1])} | {"static": 20.0})
    assert base_of(groups) == "static"
    assert highlighted(groups) == names[2:]


def test_a_summary_says_everything_of_many_policies_and_few(tmp_path: Path) -> None:
    groups = results({"static": 3.0, "kairos": 1.0}, works=("v", "w"))
    text = summary("A title", ["about *this*"], groups, made_by=["me"])
    places = [text.index(part) for part in ("## What came out", "## Overview", "about *this*", "## v", "## w", "- me")]
    assert places == sorted(places)
    assert text.count("`kairos`, paired") == 0
    overview(groups, tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 0

    alone = summary("A title", [], results({"kairos": 1.0}, loads=(1.0,)))
    assert "What came out" not in alone
    assert "Against" not in alone


def test_shares_stay_between_0_and_1_and_lists_end() -> None:
    assert share_of(Interval(0.97, 0.92, 1.04)) == "97.0 [92.0, 100.0]"
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcdef")) == "a, b, c and 3 more"
