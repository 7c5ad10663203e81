"""Evidence: regrets in hindsight, and how far predictions count next to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evidence import Evidence
from agents.hindsight import Hindsight

seeds = st.integers(0, 10_000)


def results(seed: int, *factors: float, requests: int = 600) -> Hindsight:
    """Members whose TTFTs are `factors` times the same draws; nothing is missed."""
    ttft_s = np.random.default_rng(seed).lognormal(size=requests)
    return Hindsight(np.array([factor * ttft_s for factor in factors]), np.zeros((len(factors), requests), dtype=bool))


@given(seeds)
def test_regrets_are_logarithms_of_ratios(seed: int) -> None:
    evidence = Evidence(np.zeros(3, dtype=bool))
    evidence.add([0, 1, 2], [results(seed, 1.3, 1.0, 1.1)], 600, 0.0)
    np.testing.assert_allclose(evidence.regret, np.log([1.3, 1.0, 1.1]), atol=1e-9)


@given(seeds, st.floats(0.1, 10.0))
def test_the_unit_of_time_does_not_matter(seed: int, factor: float) -> None:
    first, second = Evidence(np.zeros(2, dtype=bool)), Evidence(np.zeros(2, dtype=bool))
    first.add([0, 1], [results(seed, 1.0, 1.2)], 600, 0.0)
    second.add([0, 1], [results(seed, factor, factor * 1.2)], 600, 0.0)
    np.testing.assert_allclose(first.regret, second.regret, atol=1e-9)
    np.testing.assert_allclose(first.error, second.error, atol=1e-9)


def test_a_missed_slo_counts_like_slower_first_tokens() -> None:
    found = results(0, 1.0, 1.0)
    found.missed[1, ::50] = True
    evidence = Evidence(np.zeros(2, dtype=bool))
    evidence.add([0, 1], [found], 600, 0.0)
    assert evidence.regret[0] == 0.0
    counted = found.missed[1, 60:]  # without the warm-up
    assert evidence.regret[1] == pytest.approx(np.log(1.0 + 40.0 * counted.mean()))


def test_more_attainment_than_the_best_rule_does_not_count() -> None:
    found = results(0, 1.0, 1.2)
    found.missed[0, ::50] = True
    evidence = Evidence(np.array([True, False]))
    evidence.add([0, 1], [found], 600, 0.0)
    np.testing.assert_allclose(evidence.regret, [0.0, np.log(1.2)], atol=1e-9)


@given(seeds)
def test_fewer_or_unfinished_requests_are_weaker_evidence(seed: int) -> None:
    many, few, unfinished = (
        Evidence(np.zeros(2, dtype=bool)),
        Evidence(np.zeros(2, dtype=bool)),
        Evidence(np.zeros(2, dtype=bool)),
    )
    many.add([0, 1], [results(seed, 1.0, 1.1)], 600, 0.0)
    few.add([0, 1], [results(seed, 1.0, 1.1)], 100, 0.0)
    unfinished.add([0, 1], [results(seed, 1.0, 1.1)], 600, 0.3)
    assert (few.error > many.error).all()
    assert (unfinished.error > many.error).all()


def test_a_member_that_a_slightly_higher_rate_overloads_has_a_risk_and_an_error() -> None:
    evidence = Evidence(np.zeros(2, dtype=bool))
    evidence.add([0, 1], [results(0, 1.0, 1.2), results(0, 9.0, 1.2)], 600, 0.0)
    np.testing.assert_allclose(evidence.regret, [0.5, 0.5 * np.log(1.2)], atol=1e-9)
    assert evidence.error[0] > 0.4 > 0.2 > evidence.error[1]


@given(seeds, st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_a_corrected_regret_is_between_the_prediction_and_hindsight(seed: int, predicted: list[float]) -> None:
    evidence = Evidence(np.zeros(3, dtype=bool))
    evidence.add([0, 2], [results(seed, 1.4, 1.0)], 600, 0.0)
    corrected = evidence.corrected(np.array(predicted))
    low, high = np.minimum(evidence.regret, predicted), np.maximum(evidence.regret, predicted)
    assert (corrected >= low - 1e-9).all()
    assert (corrected <= high + 1e-9).all()
    assert evidence.regret[1] == 1.0  # not simulated


def test_predictions_that_hindsight_contradicts_count_less() -> None:
    evidence = Evidence(np.zeros(4, dtype=bool))
    evidence.add(range(4), [results(1, 1.0, 1.2, 1.4, 1.6)], 600, 0.0)
    wrong = evidence.corrected(np.array([0.9, 0.8, 0.8, 0.9]))
    close = evidence.corrected(evidence.regret + 0.02)
    assert np.abs(wrong - evidence.regret).max() < 0.1
    assert wrong.argmin() == close.argmin() == 0
