"""Assessments: the statistics of compare, Holm's correction against its definition, and what the margins mean."""

from itertools import pairwise
from math import exp, isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.analysis import ranking
from experiments.analysis.bootstrap import Estimate, seed_mean
from experiments.analysis.comparison import Groups
from experiments.analysis.folders.assessment import MARGINS, Against, compare, holm, p_lower, totals
from experiments.analysis.folders.virtual_best import Candidate, Cell
from policies import PolicySpec
from tests.experiments.made_up import outcome

MAIN = MARGINS["main"]
POLICY, BASE = "mine=runs/policy.npz", "static"
Pair = tuple[Candidate, Candidate]


@st.composite
def pairs(draw: st.DrawFn, most: int = 6) -> list[Pair]:
    """A policy and a rule in several cells, on seeds that share noise."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    seeds, cells = draw(st.integers(2, 20)), draw(st.integers(1, most))
    apart, spread = draw(st.sampled_from([-0.2, 0.0, 0.01, 0.2])), draw(st.sampled_from([0.0, 0.01, 0.1]))
    found = []
    for _ in range(cells):
        base_s = np.exp(rng.normal(0, 0.3, seeds))
        met = rng.uniform(0.85, 0.99) + 0.001 * rng.normal(size=seeds)
        policy_s = base_s * np.exp(apart + spread * rng.normal(size=seeds))
        found.append(
            (
                Candidate(PolicySpec.parse(POLICY), "slo", policy_s, met + spread * 0.05 * rng.normal(size=seeds)),
                Candidate(PolicySpec.parse(BASE), "fixed", base_s, met),
            )
        )
    return found


def with_cells(found: list[Against], given_pairs: list[Pair]) -> list[tuple[Cell, Candidate, Against]]:
    return [
        (Cell("w", float(load), 0.1), policy, against)
        for load, ((policy, _), against) in enumerate(zip(given_pairs, found, strict=True))
    ]


def as_groups(given_pairs: list[Pair]) -> Groups:
    return Groups.of(
        [
            outcome(str(one.policy), load=float(load), seed=seed, ttft_p95_s=one.p95_s[seed],
                    slo_attainment=one.attainment[seed])
            for load, pair in enumerate(given_pairs)
            for one in pair
            for seed in range(len(one.p95_s))
        ]
    )  # fmt: skip


@given(pairs())
def test_ratios_and_differences_are_those_of_compare(given_pairs: list[Pair]) -> None:
    groups = as_groups(given_pairs).values()
    for against, group in zip(compare(given_pairs, MAIN), groups, strict=True):
        assert against.ratio == group["mine"].ratio("ttft_p95_s", group[BASE])
        assert against.difference == group["mine"].difference("slo_attainment", group[BASE])


@given(pairs())
def test_totals_are_those_of_compare(given_pairs: list[Pair]) -> None:
    found = totals(with_cells(compare(given_pairs, MAIN), given_pairs))
    expected = ranking.against_virtual_best(as_groups(given_pairs), "mine")
    assert expected is not None
    assert found.ratio == expected.ratio
    assert found.at_or_below == expected.at_or_below
    if found.counted == found.cells:
        assert found.non_inferior == expected.non_inferior
        assert found.worst[0] - 1 == pytest.approx(expected.worst)
        assert min(0.0, found.worst_loss[0]) == pytest.approx(expected.worst_points)


@given(pairs())
def test_statements_follow_from_each_other(given_pairs: list[Pair]) -> None:
    main, other = (compare(given_pairs, MARGINS[name]) for name in ("main", "other"))
    for one, wider in zip(main, other, strict=True):
        assert one.within or not one.non_inferior
        assert one.p <= one.holm_p
        assert not one.better or one.ratio.value < 1
        assert wider.within or not one.within
        assert wider.non_inferior or not one.non_inferior
    found = totals(with_cells(main, given_pairs))
    assert found.non_inferior <= found.within <= found.counted <= found.cells == len(given_pairs)


@given(pairs(most=3))
def test_a_policy_that_is_the_virtual_best_is_non_inferior_and_not_better(given_pairs: list[Pair]) -> None:
    for against in compare([(base, base) for _, base in given_pairs], MAIN):
        assert against.ratio == (1, 1, 1)
        assert against.non_inferior
        assert against.within
        assert not against.better
        assert against.counted == (against.base.mean_attainment >= 0.9)


def holm_by_definition(p_values: list[float], level: float) -> set[int]:
    """The hypotheses that Holm's step-down procedure rejects: stop at the first that is too large."""
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected.add(index)
    return rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_holms_correction_rejects_what_its_definition_rejects(p_values: list[float], level: float) -> None:
    adjusted = holm(p_values)
    near = any(abs(one - level) < 1e-12 for one in adjusted)  # a tie with the level depends on rounding
    assert near or {index for index, one in enumerate(adjusted) if one <= level} == holm_by_definition(p_values, level)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holms_correction_lies_between_none_and_bonferronis(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for one, p in zip(adjusted, p_values, strict=True):
        assert p <= one <= min(1.0, len(p_values) * p)
    order = np.argsort(p_values)
    assert all(adjusted[first] <= adjusted[second] for first, second in pairwise(order))


def test_the_p_value_is_near_that_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    for apart in (-0.02, -0.005, 0.0, 0.01):
        ratios = np.exp(apart + 0.02 * rng.normal(size=20))
        found = p_lower(seed_mean(ratios).over(seed_mean(np.ones(20))))
        expected = stats.ttest_1samp(np.log(ratios), 0.0, alternative="less").pvalue
        assert log(found) == pytest.approx(log(expected), rel=0.1, abs=0.1)


@pytest.mark.parametrize(("ratio", "p"), [(0.9, 0.0), (1.0, 1.0), (1.1, 1.0)])
def test_a_ratio_that_never_varies_is_decided(ratio: float, p: float) -> None:
    assert p_lower(Estimate(ratio, np.full(10, ratio), 5)) == pytest.approx(p)


def test_one_seed_says_nothing() -> None:
    assert isnan(p_lower(Estimate(0.5, np.array([0.5]), 1)))
    assert not isnan(p_lower(Estimate(0.5, np.array([0.4, exp(-1), 0.6]), 2)))


@pytest.mark.parametrize(
    ("ratio", "difference", "within_main", "within_other"),
    [
        (1.019, -0.004, True, True),
        (1.021, 0.0, False, True),
        (1.0, -0.006, False, True),
        (1.031, 0.0, False, False),
        (0.5, -0.011, False, False),
    ],
)
def test_both_margins_must_be_kept(ratio: float, difference: float, within_main: bool, within_other: bool) -> None:
    base = Candidate(PolicySpec.parse(BASE), "slo", np.linspace(1, 2, 8), np.full(8, 0.95))
    policy = Candidate(PolicySpec.parse(POLICY), "slo", ratio * base.p95_s, base.attainment + difference)
    assert compare([(policy, base)], MARGINS["main"])[0].within is within_main
    assert compare([(policy, base)], MARGINS["other"])[0].within is within_other
