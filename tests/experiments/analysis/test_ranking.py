"""Rankings: ties need seeds, verdicts follow intervals, and the virtual best is a rule."""

from collections.abc import Mapping
from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.analysis.bootstrap import FEWEST_UNITS, Interval
from experiments.analysis.comparison import Group, Groups, verdict
from experiments.analysis.ranking import (
    ATTAINMENT_MARGIN,
    POINTS_MARGIN,
    RATIO_MARGIN,
    against_virtual_best,
    rank,
    virtual_best,
)
from experiments.runs.cache import Cache
from experiments.runs.trial import run_trials
from tests.experiments.made_up import outcome, results, trial

P95, ATTAINMENT = "ttft_p95_s", "slo_attainment"
LEARNED, BOUND = "mine=runs/a/policy.npz", "lookahead"
BOUND_LABEL = "lookahead (clairvoyant)"
POLICIES = ("static", "kairos", "random", LEARNED, BOUND)


def group_of(p95_s: Mapping[str, list[float]], attainment: Mapping[str, list[float]] | None = None) -> Group:
    """One cell: P95 TTFT, and attainment, of each policy by seed."""
    (group,) = Groups.of(
        [
            outcome(policy, seed=seed, ttft_p95_s=value, slo_attainment=(attainment or {}).get(policy, values)[seed])
            for policy, values in p95_s.items()
            for seed, value in enumerate(values)
        ]
    ).values()
    return group


@st.composite
def groups(draw: st.DrawFn, cells: int = 1, least: int = 2) -> Groups:
    """Cells of all POLICIES or fewer, whose seeds share noise; one seed alone would be a trace."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    seeds = draw(st.integers(least, 12))
    chosen = draw(st.lists(st.sampled_from(POLICIES), min_size=2, unique=True))
    spread, apart = draw(st.sampled_from([0.0, 0.02, 0.3])), draw(st.sampled_from([0.0, 0.05, 1.0]))
    found = []
    for load in range(1, cells + 1):
        noise = rng.normal(0, 0.3, seeds)
        for policy in chosen:
            p95_s = np.exp(noise + rng.normal(0, apart) + rng.normal(0, spread, seeds))
            met = np.clip(1 - 0.02 * p95_s + rng.normal(0, 0.1 * spread, seeds), 0, 1)
            found += [
                outcome(policy, load=load, seed=seed, ttft_p95_s=tail_s, slo_attainment=share)
                for seed, (tail_s, share) in enumerate(zip(p95_s.tolist(), met.tolist(), strict=True))
            ]
    return Groups.of(found)


def learned_or_clairvoyant(label: str) -> bool:
    return label in ("mine", BOUND_LABEL)


# ---- within a cell ---------------------------------------------------------------------------------------------------


def test_the_best_is_alone_or_ties_are_named() -> None:
    for group in results({"static": 3.0, "kairos": 1.0, "random": 2.0}).values():
        for metric in (P95, ATTAINMENT):
            ranking = rank(group, metric)
            assert (ranking.best, ranking.tied, ranking.enough_seeds) == ("kairos", [], True)
    by_luck = {
        policy: [1.0 + shift * (-1) ** seed for seed in range(8)]
        for policy, shift in (("static", 0.0), ("kairos", 0.5), ("random", 0.3))
    }
    ranking = rank(group_of(by_luck), P95)
    assert (ranking.best, ranking.tied) == ("static", ["kairos", "random"])


def test_of_equals_in_attainment_the_one_with_the_lower_p95_is_best() -> None:
    p95_s = {"static": [2.0] * 8, "kairos": [1.0] * 8}
    ranking = rank(group_of(p95_s, dict.fromkeys(p95_s, [1.0] * 8)), ATTAINMENT)
    assert (ranking.best, ranking.tied) == ("kairos", ["static"])


@settings(max_examples=60)
@given(groups(), st.sampled_from([P95, ATTAINMENT]))
def test_with_fewer_than_five_seeds_nothing_ties(found: Groups, metric: str) -> None:
    (group,) = found.values()
    ranking = rank(group, metric)
    assert ranking.enough_seeds == (found.seeds >= FEWEST_UNITS)
    if found.seeds < FEWEST_UNITS:
        assert ranking.tied == []
        words = {verdict(change, metric, found.seeds) for change in ranking.changes.values()}
        assert words <= {"better", "worse", "too few seeds"}


@settings(max_examples=60)
@given(groups(least=FEWEST_UNITS), st.sampled_from([P95, ATTAINMENT]))
def test_a_policy_ties_if_its_interval_includes_no_change(found: Groups, metric: str) -> None:
    (group,) = found.values()
    ranking = rank(group, metric)
    same = 1.0 if metric == P95 else 0.0
    assert ranking.tied == [label for label, change in ranking.changes.items() if not change.excludes(same)]
    for label, change in ranking.changes.items():
        plain = group[label].change(metric, group[ranking.best])
        assert change.value == plain.value
        assert (change.value >= same) if metric == P95 else (change.value <= same)  # nothing is better than the best
    assert {ranking.best, *ranking.changes} == {
        label for label in group if label != BOUND_LABEL or list(group) == [BOUND_LABEL]
    }


@given(st.floats(0.01, 10), st.floats(1, 10), st.floats(1, 10), st.sampled_from([P95, ATTAINMENT]), st.integers(1, 20))
def test_a_verdict_is_what_the_interval_says(value: float, down: float, up: float, metric: str, units: int) -> None:
    latency = metric == P95
    interval = (
        Interval(value, value / down, value * up) if latency else Interval(value - 5, value - 5 - down, value - 5 + up)
    )
    same = 1.0 if latency else 0.0
    said = verdict(interval, metric, units)
    if interval.low <= same <= interval.high:
        assert said == ("tied" if units >= FEWEST_UNITS else "too few seeds")
    else:
        assert said == ("better" if (interval.value < same) == latency else "worse")


def test_an_interval_that_is_not_known_decides_nothing() -> None:
    unknown = Interval(0.5, nan, nan)
    assert verdict(unknown, P95, 1) == verdict(unknown, ATTAINMENT, 1) == "too few seeds"


@settings(max_examples=60)
@given(groups(), st.sampled_from([P95, ATTAINMENT]))
def test_a_clairvoyant_policy_is_never_best(found: Groups, metric: str) -> None:
    (group,) = found.values()
    ranking = rank(group, metric)
    assert ranking.best != BOUND_LABEL
    assert BOUND_LABEL not in ranking.changes


# ---- the virtual best ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(groups())
def test_the_virtual_best_is_a_rule_close_to_the_highest_attainment(found: Groups) -> None:
    (group,) = found.values()
    rules = [runs for label, runs in group.items() if not learned_or_clairvoyant(label)]
    best = virtual_best(group)
    if not rules:
        assert best is None
        return
    assert best in rules
    highest = max(runs.mean(ATTAINMENT) for runs in rules)
    assert best.mean(ATTAINMENT) >= highest - ATTAINMENT_MARGIN
    close = [runs for runs in rules if runs.mean(ATTAINMENT) >= highest - ATTAINMENT_MARGIN]
    assert best.mean(P95) == min(runs.mean(P95) for runs in close)


def test_a_rule_that_gives_up_attainment_is_not_the_virtual_best() -> None:
    p95_s = {"static": [1.0] * 5, "kairos": [2.0] * 5}
    assert virtual_best(group_of(p95_s, {"static": [0.9] * 5, "kairos": [0.95] * 5})).policy.label == "kairos"
    assert virtual_best(group_of(p95_s, {"static": [0.945] * 5, "kairos": [0.95] * 5})).policy.label == "static"


@settings(max_examples=40)
@given(groups())
def test_the_virtual_best_has_no_regret_in_a_single_cell(found: Groups) -> None:
    (group,) = found.values()
    best = virtual_best(group)
    if best is None:
        assert all(against_virtual_best(found, label) is None for label in group)
        return
    itself = against_virtual_best(found, best.policy.label)
    assert itself is not None
    assert (itself.worst, itself.worst_points, itself.at_or_below, itself.non_inferior) == (0.0, 0.0, 1, 1)
    assert itself.ratio == pytest.approx((1.0, 1.0, 1.0))


@settings(max_examples=30)
@given(groups(cells=3, least=5))
def test_what_is_said_against_the_virtual_best_follows_from_the_cells(found: Groups) -> None:
    for label in found.policies:
        against = against_virtual_best(found, label)
        bests = {key: virtual_best(group) for key, group in found.items()}
        if None in bests.values():
            assert against is None
            continue
        assert against is not None
        ratios = {key: group[label].mean(P95) / bests[key].mean(P95) for key, group in found.items()}
        assert against.worst == pytest.approx(max(ratios.values()) - 1)
        assert ratios[against.worst_cell] == pytest.approx(max(ratios.values()))
        assert against.ratio.value == pytest.approx(np.exp(np.mean(np.log(list(ratios.values())))))
        assert against.at_or_below == sum(ratio <= 1 for ratio in ratios.values())
        assert against.worst_points <= 0
        assert 0 < against.ratio.low <= against.ratio.high
        close = 0
        for key, group in found.items():
            ratio, points = group[label].ratio(P95, bests[key]), group[label].difference(ATTAINMENT, bests[key])
            itself = group[label] is bests[key]
            close += itself or (ratio.high <= 1 + RATIO_MARGIN and points.low >= -POINTS_MARGIN)
        assert against.non_inferior == close


def test_one_seed_of_a_family_has_intervals_but_no_ties(tmp_path: Path) -> None:
    outcomes = run_trials([trial("static"), trial("random")], Cache(tmp_path))
    (group,) = Groups.of(outcomes).values()
    assert group["static"].interval(P95).high > group["static"].interval(P95).value  # over blocks of its requests
    ranking = rank(group, P95)
    assert (ranking.tied, ranking.enough_seeds) == ([], False)
