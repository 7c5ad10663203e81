"""Regrets: shares, without a unit, and only what the virtual best has counts."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.regret import regrets


class Results(NamedTuple):
    ttft_p95_s: np.ndarray
    attainment: np.ndarray
    is_rule: np.ndarray


@st.composite
def results(draw: st.DrawFn) -> Results:
    count = draw(st.integers(1, 7))
    several = st.tuples(st.floats(0.01, 100.0), st.floats(0.0, 1.0), st.booleans())
    ttft_p95_s, attainment, is_rule = zip(*[draw(several) for _ in range(count)], strict=True)
    return Results(np.array(ttft_p95_s), np.array(attainment), np.array(is_rule))


@given(results())
def test_regrets_are_shares_and_one_member_has_none(case: Results) -> None:
    found = regrets(*case)
    assert all(0.0 <= one <= 1.0 for one in found)
    assert found.min() == 0.0


@given(results())
def test_a_member_that_is_not_worse_than_the_virtual_best_has_no_more_regret(case: Results) -> None:
    rules = np.flatnonzero(case.is_rule) if case.is_rule.any() else np.arange(len(case.is_rule))
    usable = [one for one in rules if case.attainment[one] >= case.attainment[rules].max() - 0.01]
    best = min(usable, key=lambda one: case.ttft_p95_s[one])
    better = (case.ttft_p95_s <= case.ttft_p95_s[best]) & (case.attainment >= case.attainment[best])
    found = regrets(*case)
    assert (found[better] <= found[best]).all()


@given(results(), st.floats(0.1, 10.0))
def test_the_unit_of_time_does_not_matter(case: Results, factor: float) -> None:
    longer = case._replace(ttft_p95_s=factor * case.ttft_p95_s)
    np.testing.assert_allclose(regrets(*longer), regrets(*case), atol=1e-9)


@given(results(), st.floats(1.0, 3.0), st.floats(0.0, 0.5))
def test_a_worse_result_has_at_least_the_regret(case: Results, factor: float, loss: float) -> None:
    found = regrets(
        np.append(case.ttft_p95_s, factor * case.ttft_p95_s[0]),
        np.append(case.attainment, max(0.0, case.attainment[0] - loss)),
        np.append(case.is_rule, False),
    )
    assert found[-1] >= found[0] or not case.is_rule.any()


@given(st.floats(0.01, 100.0), st.floats(0.5, 0.9), st.floats(0.0, 0.1))
def test_only_attainment_below_the_best_rule_counts(ttft_p95_s: float, attainment: float, difference: float) -> None:
    ttfts, is_rule = np.full(3, ttft_p95_s), np.array([True, False, False])
    found = regrets(ttfts, attainment + np.array([0.0, difference, -difference]), is_rule)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] == pytest.approx(min(1.0, np.log(1.0 + difference / (1.0 - attainment + 0.025))))


def test_a_point_counts_less_the_more_is_missed() -> None:
    lost = [
        regrets(np.ones(2), np.array([attainment, attainment - 0.01]), np.array([True, False]))[1]
        for attainment in (1.0, 0.99, 0.9, 0.5)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] == pytest.approx(np.log(1.4))


def test_a_member_without_a_p95_has_the_most() -> None:
    is_rule = np.array([True, False])
    assert regrets(np.array([1.0, np.inf]), np.ones(2), is_rule).tolist() == [0.0, 1.0]
    assert regrets(np.full(2, np.inf), np.ones(2), is_rule).tolist() == [1.0, 1.0]
