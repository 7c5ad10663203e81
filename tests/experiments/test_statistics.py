import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.statistics import (
    BLOCK_RESAMPLES,
    BLOCKS,
    Interval,
    _block_resampled,
    _draws,
    block_mean_interval,
    interquartile_mean,
    mean_interval,
    probability_below,
    quantile_difference,
    quantile_interval,
    quantile_ratio,
    ratio_interval,
)

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@settings(max_examples=25)
@given(VALUES)
def test_equal_numbers_give_equal_intervals_around_the_mean(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval == mean_interval(values)
    assert interval.value == pytest.approx(np.mean(values))
    assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9
    if len(values) >= 5:
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_a_constant_has_an_interval_of_no_width() -> None:
    assert mean_interval([3.0] * 5) == Interval(3.0, 3.0, 3.0)
    assert ratio_interval([2.0] * 5, [4.0] * 5) == Interval(0.5, 0.5, 0.5)


def test_one_seed_has_no_interval() -> None:
    value, low, high = mean_interval([3.0])
    assert value == 3.0
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds: int) -> None:
    # Skewed numbers of mean 1, as times are; a plain percentile interval covers 0.83 with five seeds.
    samples = np.random.default_rng(0).gamma(4.0, 0.25, size=(300, seeds))
    covered = [low <= 1.0 <= high for _, low, high in map(mean_interval, samples)]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_pairing_sees_a_small_difference_behind_large_noise() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(100, 30, 20)
    better = base - 1 + rng.normal(0, 0.5, 20)
    assert mean_interval(better - base).excludes_zero
    assert not mean_interval(better - np.roll(base, 1)).excludes_zero
    paired = ratio_interval(better, base)
    assert paired.low < paired.value < paired.high < 1


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.1, 1, True), (-1, -0.1, True), (-1, 1, False), (0, 1, False)])
def test_excluding_zero(low: float, high: float, verdict: bool) -> None:
    assert Interval(0.5, low, high).excludes_zero is verdict


def test_blocks_know_that_neighbours_are_alike() -> None:
    # Requests come in twenty stretches of equal values: there are twenty numbers, not a thousand.
    stretches = np.random.default_rng(2).normal(size=BLOCKS)
    alike = np.repeat(stretches, 50)[None, :]
    low, high = quantile_interval(alike, 0.5)[1:]
    shuffled = np.random.default_rng(3).permuted(alike, axis=1)
    low_shuffled, high_shuffled = quantile_interval(shuffled, 0.5)[1:]
    assert high - low > 2 * (high_shuffled - low_shuffled)
    assert low <= np.median(stretches) <= high


def test_block_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    covered = [
        low <= 0 <= high for _, low, high in (block_mean_interval(rng.normal(size=(1, 400))) for _ in range(300))
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_the_point_estimates_are_the_plain_ones() -> None:
    values, base = np.random.default_rng(5).gamma(2.0, size=(2, 1, 777))
    assert quantile_interval(values, 0.95).value == np.quantile(values, 0.95)
    assert quantile_ratio(values, base, 0.95).value == np.quantile(values, 0.95) / np.quantile(base, 0.95)
    assert quantile_difference(values, base, 0.95).value == np.quantile(values, 0.95) - np.quantile(base, 0.95)
    assert block_mean_interval(values).value == pytest.approx(values.mean())


def test_a_policy_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(6).gamma(2.0, size=(1, 300))
    assert quantile_difference(values, values, 0.95) == Interval(0.0, 0.0, 0.0)
    assert quantile_ratio(values, values, 0.95) == Interval(1.0, 1.0, 1.0)


def test_repeating_a_run_adds_no_certainty() -> None:
    values = np.random.default_rng(7).gamma(2.0, size=(1, 300))
    assert quantile_interval(np.repeat(values, 5, axis=0), 0.95)[1:] == pytest.approx(
        quantile_interval(values, 0.95)[1:], rel=0.02
    )


def test_fewer_requests_than_blocks() -> None:
    interval = quantile_interval(np.arange(1.0, 8.0)[None, :], 0.95)
    assert 1 <= interval.low <= interval.high <= 7


def test_the_interquartile_mean_ignores_the_outer_quarters() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 1000.0]])
    assert interquartile_mean(scores).value == pytest.approx(np.mean([3, 4, 5, 6]))


def test_seeds_are_drawn_within_their_cell() -> None:
    # Cells differ by far more than seeds do; drawing across cells would show in the interval.
    cells = np.array([0.0, 100.0, 200.0, 300.0])
    scores = cells + np.random.default_rng(8).normal(0, 0.1, size=(10, 4))
    low, high = interquartile_mean(scores)[1:]
    assert high - low < 1


def test_probability_below() -> None:
    base = np.arange(12.0).reshape(6, 2)
    assert probability_below(base - 1, base) == Interval(1.0, 1.0, 1.0)
    assert probability_below(base, base) == Interval(0.5, 0.5, 0.5)
    mixed = probability_below(base + np.array([-1, 1]), base)
    assert mixed.value == 0.5


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 700), st.sampled_from([0.05, 0.5, 0.95, 1.0]), st.integers(0, 99))
def test_block_quantiles_are_those_of_the_values_drawn_again(runs: int, requests: int, q: float, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 50, (runs, requests)).astype(np.float64)
    blocks = min(BLOCKS, requests)
    block_of = np.arange(requests) * blocks // requests
    found = _block_resampled(values, q)
    for row, drawn in list(enumerate(_draws(blocks, BLOCK_RESAMPLES)))[::199]:
        again = np.concatenate([values[:, block_of == block].ravel() for block in drawn])
        assert found[row] == np.quantile(again, q, method="inverted_cdf")
