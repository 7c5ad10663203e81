"""Bootstrap intervals: they cover the truth as often as they say, pairs are paired, and latencies stay positive."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.analysis.bootstrap import (
    BLOCK_RESAMPLES,
    BLOCKS,
    FEWEST_UNITS,
    MAX_T_UNITS,
    RESAMPLES,
    Estimate,
    Floats,
    Interval,
    _draws,
    block_mean,
    block_quantile,
    clustered,
    geometric_mean_ratio,
    interquartile_mean,
    probability_below,
    seed_mean,
    seed_means_interval,
    simultaneous,
    stratified,
)

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)
LATENCIES = st.lists(st.floats(1e-3, 1e2), min_size=2, max_size=30)
SHAPES = st.tuples(st.integers(2, 24), st.integers(0, 999))
"""Seeds, and the random stream of a sample."""


def sample(shape: tuple[int, int], columns: int = 1) -> Floats:
    """Skewed positive numbers of mean 1, as latencies are, shape (columns, seeds)."""
    seeds, stream = shape
    return np.random.default_rng(stream).gamma(4.0, 0.25, size=(columns, seeds))


def width(interval: Interval, *, log: bool = False) -> float:
    return math.log(interval.high / interval.low) if log else interval.high - interval.low


# ---- one estimate ----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(VALUES)
def test_equal_numbers_give_equal_intervals_around_the_mean(values: list[float]) -> None:
    interval = seed_mean(values).interval()
    assert interval == seed_mean(values).interval()
    assert interval.value == pytest.approx(np.mean(values))
    assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9
    if len(values) >= FEWEST_UNITS:
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


@settings(max_examples=50)
@given(LATENCIES)
def test_the_interval_of_a_latency_is_positive_with_any_seeds(values: list[float]) -> None:
    interval = seed_mean(values).interval(log=True)
    assert 0 < interval.low <= interval.value * (1 + 1e-9)
    assert interval.value <= interval.high * (1 + 1e-9)
    assert math.isfinite(interval.high)


def test_a_linear_interval_of_few_seeds_may_be_negative() -> None:
    """This is why latencies are taken on the logarithmic scale."""
    assert seed_mean([1.0, 9.0]).interval().low < 0 < seed_mean([1.0, 9.0]).interval(log=True).low


@given(shape=SHAPES)
def test_with_five_seeds_or_more_both_scales_give_one_interval(shape: tuple[int, int]) -> None:
    estimate = seed_mean(sample(shape)[0])
    same = estimate.interval() == estimate.interval(log=True)
    assert same == (estimate.units >= FEWEST_UNITS)


def test_a_constant_has_an_interval_of_no_width() -> None:
    three, two, four = seed_mean([3.0] * 5), seed_mean([2.0] * 5), seed_mean([4.0] * 5)
    assert three.interval() == Interval(3.0, 3.0, 3.0)
    assert two.over(four).interval(log=True) == Interval(0.5, 0.5, 0.5)


def test_one_seed_has_no_interval() -> None:
    for log in (False, True):
        value, low, high = seed_mean([3.0]).interval(log=log)
        assert value == 3.0
        assert math.isnan(low)
        assert math.isnan(high)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 20])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds: int, log: bool) -> None:
    # A plain percentile interval covers 0.83 with five seeds.
    samples = np.random.default_rng(0).gamma(4.0, 0.25, size=(300, seeds))
    covered = [low <= 1.0 <= high for _, low, high in (seed_mean(one).interval(log=log) for one in samples)]
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(("low", "high", "outside"), [(0.1, 1, True), (-1, -0.1, True), (-1, 1, False), (0, 1, False)])
def test_an_interval_excludes_what_lies_outside(low: float, high: float, outside: bool) -> None:
    assert Interval(0.5, low, high).excludes(0.0) is outside
    assert not Interval(0.5, math.nan, math.nan).excludes(0.0)


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_pairing_sees_a_small_difference_behind_large_noise() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(100, 30, 20)
    better = base - 1 + rng.normal(0, 0.5, 20)
    assert seed_mean(better).minus(seed_mean(base)).interval().excludes(0.0)
    assert not seed_mean(better).minus(seed_mean(np.roll(base, 1))).interval().excludes(0.0)
    paired = seed_mean(better).over(seed_mean(base)).interval(log=True)
    assert paired.low < paired.value < paired.high < 1


@given(shape=SHAPES)
def test_a_sample_compared_with_itself_has_an_interval_of_no_width(shape: tuple[int, int]) -> None:
    one, same = (seed_mean(sample(shape)[0]) for _ in range(2))
    assert one.over(same).interval(log=True) == Interval(1.0, 1.0, 1.0)
    assert one.minus(same).interval() == Interval(0.0, 0.0, 0.0)
    assert simultaneous([one.over(same)], log=True) == [Interval(1.0, 1.0, 1.0)]


@given(shape=SHAPES)
def test_the_ratio_of_a_to_b_is_the_reciprocal_of_b_to_a(shape: tuple[int, int]) -> None:
    one, other = map(seed_mean, sample(shape, 2))
    value, low, high = one.over(other).interval(log=True)
    # Percentiles fall between two replicates, where the two scales differ a little.
    rel = 1e-9 if one.units < FEWEST_UNITS else 1e-3
    assert other.over(one).interval(log=True) == pytest.approx((1 / value, 1 / high, 1 / low), rel=rel)
    (forth,), (back,) = (simultaneous([ratio], log=True) for ratio in (one.over(other), other.over(one)))
    assert back == pytest.approx((1 / forth.value, 1 / forth.high, 1 / forth.low))


@given(shape=SHAPES)
def test_the_difference_of_a_and_b_is_that_of_b_and_a_turned(shape: tuple[int, int]) -> None:
    one, other = map(seed_mean, sample(shape, 2))
    value, low, high = one.minus(other).interval()
    assert other.minus(one).interval() == pytest.approx((-value, -high, -low), abs=1e-3)


# ---- several estimates at once ---------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(shape=SHAPES, columns=st.integers(1, 6), log=st.booleans())
def test_simultaneous_intervals_hold_the_values_and_widen(shape: tuple[int, int], columns: int, log: bool) -> None:
    estimates = [seed_mean(values) for values in sample(shape, columns)]
    together = simultaneous(estimates, log=log)
    for estimate, interval in zip(estimates, together, strict=True):
        assert interval.low <= interval.value == estimate.value <= interval.high
        assert interval.low > 0 or not log
        (alone,) = simultaneous([estimate], log=log)
        assert width(interval, log=log) >= width(alone, log=log) * (1 - 1e-12)
        if estimate.units < FEWEST_UNITS:
            assert width(interval, log=log) >= width(estimate.interval(log=log), log=log) * (1 - 1e-12)


@given(shape=SHAPES, columns=st.integers(1, 6))
def test_equal_estimates_are_as_wide_as_one_if_seeds_are_many(shape: tuple[int, int], columns: int) -> None:
    estimate = seed_mean(sample(shape)[0])
    (alone,) = simultaneous([estimate])
    together = simultaneous([estimate] * columns)
    if estimate.units >= MAX_T_UNITS:
        assert together == [alone] * columns
    else:
        assert width(together[0]) >= width(alone)


@given(shape=SHAPES)
def test_one_estimate_alone_has_students_interval_if_seeds_are_few(shape: tuple[int, int]) -> None:
    estimate = seed_mean(sample((shape[0] % 3 + 2, shape[1]))[0])
    for log in (False, True):
        (alone,) = simultaneous([estimate], log=log)
        assert alone == pytest.approx(estimate.interval(log=log))


def test_one_seed_has_no_simultaneous_intervals() -> None:
    for interval in simultaneous([seed_mean([3.0]), seed_mean([2.0])]):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    assert simultaneous([]) == []


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("policies", [1, 6, 15])
@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 10, 20])
def test_simultaneous_intervals_hold_together_as_often_as_they_say(seeds: int, policies: int, log: bool) -> None:
    rng = np.random.default_rng(2)
    held = []
    for _ in range(100):
        noise = rng.normal(0, 0.3, seeds)  # of the requests, which the policies share
        base, *others = map(seed_mean, np.exp(noise + rng.normal(0, 0.1, (policies + 1, seeds))))
        changes = [one.over(base) if log else one.minus(base) for one in others]
        intervals = simultaneous(changes, log=log)
        held.append(not any(interval.excludes(1.0 if log else 0.0) for interval in intervals))
    assert np.mean(held) >= 0.88  # 0.95 minus three standard errors of 100 samples


# ---- blocks of one run -----------------------------------------------------------------------------------------------


def test_blocks_know_that_neighbours_are_alike() -> None:
    # Requests come in twenty stretches of equal values: there are twenty numbers, not a thousand.
    stretches = np.random.default_rng(2).normal(size=BLOCKS)
    alike = np.repeat(stretches, 50)[None, :]
    interval = block_quantile(alike, 0.5).interval()
    shuffled = np.random.default_rng(3).permuted(alike, axis=1)
    assert width(interval) > 2 * width(block_quantile(shuffled, 0.5).interval())
    assert interval.low <= np.median(stretches) <= interval.high


def test_block_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    intervals = [block_mean(rng.normal(size=(1, 400))).interval() for _ in range(300)]
    assert 0.88 <= np.mean([low <= 0 <= high for _, low, high in intervals]) <= 0.99


def test_the_point_estimates_are_the_plain_ones() -> None:
    values, base = np.random.default_rng(5).gamma(2.0, size=(2, 1, 777))
    quantiles = block_quantile(values, 0.95), block_quantile(base, 0.95)
    plain = np.quantile(values, 0.95), np.quantile(base, 0.95)
    assert tuple(one.value for one in quantiles) == plain
    assert quantiles[0].over(quantiles[1]).interval(log=True).value == plain[0] / plain[1]
    assert quantiles[0].minus(quantiles[1]).interval().value == plain[0] - plain[1]
    assert block_mean(values).value == pytest.approx(values.mean())


def test_a_policy_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(6).gamma(2.0, size=(1, 300))
    one, same = block_quantile(values, 0.95), block_quantile(values, 0.95)
    assert one.minus(same).interval() == Interval(0.0, 0.0, 0.0)
    assert one.over(same).interval(log=True) == Interval(1.0, 1.0, 1.0)


def test_repeating_a_run_adds_no_certainty() -> None:
    values = np.random.default_rng(7).gamma(2.0, size=(1, 300))
    repeated = block_quantile(np.repeat(values, 5, axis=0), 0.95).interval()
    assert repeated[1:] == pytest.approx(block_quantile(values, 0.95).interval()[1:], rel=0.02)


def test_fewer_requests_than_blocks() -> None:
    interval = block_quantile(np.arange(1.0, 8.0)[None, :], 0.95).interval()
    assert 1 <= interval.low <= interval.high <= 7


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 700), st.sampled_from([0.05, 0.5, 0.95, 1.0]), st.integers(0, 99))
def test_block_quantiles_are_those_of_the_values_drawn_again(runs: int, requests: int, q: float, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 50, (runs, requests)).astype(np.float64)
    blocks = min(BLOCKS, requests)
    block_of = np.arange(requests) * blocks // requests
    found = block_quantile(values, q).replicates
    for row, drawn in list(enumerate(_draws(blocks, BLOCK_RESAMPLES)))[::199]:
        again = np.concatenate([values[:, block_of == block].ravel() for block in drawn])
        assert found[row] == np.quantile(again, q, method="inverted_cdf")


# ---- seeds and cells -------------------------------------------------------------------------------------------------


def test_the_interquartile_mean_ignores_the_outer_quarters() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 1000.0]])
    assert stratified(interquartile_mean, scores).value == pytest.approx(np.mean([3, 4, 5, 6]))


def test_seeds_are_drawn_within_their_cell() -> None:
    # Cells differ by far more than seeds do; drawing across cells would show in the interval.
    cells = np.array([0.0, 100.0, 200.0, 300.0])
    scores = cells + np.random.default_rng(8).normal(0, 0.1, size=(10, 4))
    assert width(stratified(interquartile_mean, scores).interval()) < 1


def test_the_probability_of_being_below_counts_ties_half() -> None:
    base = np.arange(12.0).reshape(6, 2)
    below = [
        stratified(probability_below, values, base).interval() for values in (base - 1, base, base + np.array([-1, 1]))
    ]
    assert below[0] == Interval(1.0, 1.0, 1.0)
    assert below[1] == Interval(0.5, 0.5, 0.5)
    assert below[2].value == 0.5


@given(shape=SHAPES, factor=st.floats(0.1, 10.0))
def test_the_geometric_mean_ratio_of_proportional_scores(shape: tuple[int, int], factor: float) -> None:
    base = sample(shape, 3).T
    found = stratified(geometric_mean_ratio, factor * base, base).interval(log=True)
    assert found == pytest.approx((factor, factor, factor))


# ---- events and curves -----------------------------------------------------------------------------------------------


def _weighted_mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))


def test_events_are_drawn_with_their_run() -> None:
    # Ten runs with ten equal events each are ten numbers, not a hundred.
    by_run = np.random.default_rng(9).normal(size=10)
    together = clustered(_weighted_mean, np.repeat(by_run, 10), np.repeat(np.arange(10), 10), 10)
    apart = clustered(_weighted_mean, np.repeat(by_run, 10), np.arange(100), 100)
    assert together.value == pytest.approx(by_run.mean())
    assert width(together) > 2 * width(apart)


def test_events_of_few_runs_have_no_interval() -> None:
    few = clustered(_weighted_mean, np.arange(8.0), np.repeat(np.arange(4), 2), 9)
    assert few.value == 3.5
    assert math.isnan(few.low)
    assert math.isnan(clustered(_weighted_mean, np.array([]), np.array([], dtype=np.int64), 9).value)


@given(shape=SHAPES)
def test_a_curve_of_one_point_has_the_interval_of_its_seeds(shape: tuple[int, int]) -> None:
    values = sample(shape)[0]
    found = seed_means_interval(values[:, None], lambda mean: float(mean[0]), float(values.mean()))
    plain = Estimate(float(values.mean()), values[_draws(shape[0], BLOCK_RESAMPLES)].mean(axis=1), shape[0])
    assert found == pytest.approx(plain.interval(log=True))
    assert len(_draws(shape[0])) == RESAMPLES
