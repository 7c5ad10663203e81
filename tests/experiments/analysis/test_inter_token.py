"""Statistics over inter-token gaps equal those of every single gap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import GapLog
from envs.cluster.gaps import segment
from experiments.analysis.inter_token import Gaps

SEGMENT = st.tuples(
    st.integers(1, 30), st.floats(0.001, 0.2), st.one_of(st.just(0.0), st.floats(1e-9, 0.01)), st.integers(1, 9)
)


def gaps_of(segments: list[tuple[int, float, float, int]]) -> tuple[Gaps, np.ndarray]:
    """The segments, and every single gap of them in order."""
    log = GapLog()
    single = []
    for begin, (steps, first_s, growth_s, weight) in enumerate(segments):
        log.append(segment(float(begin), steps, first_s, growth_s, weight))
        for step in range(steps):
            single += [first_s + step * growth_s] * weight
    return Gaps.between(log, 0.0, math.inf), np.sort(single)


@given(st.lists(SEGMENT, min_size=1, max_size=20), st.floats(0, 1))
def test_quantiles_are_those_of_the_expanded_gaps(segments: list[tuple[int, float, float, int]], q: float) -> None:
    gaps, single = gaps_of(segments)
    expected = np.quantile(single, q, method="inverted_cdf")
    assert gaps.quantile_s(q) == pytest.approx(expected, rel=1e-9)


@given(st.lists(SEGMENT, min_size=1, max_size=20))
def test_total_and_mean_are_those_of_the_expanded_gaps(segments: list[tuple[int, float, float, int]]) -> None:
    gaps, single = gaps_of(segments)
    assert gaps.total == len(single)
    assert gaps.mean_s() == pytest.approx(single.mean())
    assert gaps.quantile_s(1.0) == pytest.approx(single.max())


def test_segments_outside_the_window_or_without_sequences_are_left_out() -> None:
    log = GapLog()
    for begins_s, weight in ((0.0, 1), (1.0, 2), (2.0, 0), (3.0, 4), (4.0, 8)):
        log.append(segment(begins_s, 3, 0.1, 0.0, weight))
    assert Gaps.between(log, 1.0, 3.0).total == 3 * (2 + 4)


def test_without_gaps_there_is_nothing_to_measure() -> None:
    nothing = Gaps.between(GapLog(), 0.0, 1.0)
    assert math.isnan(nothing.mean_s())
    assert math.isnan(nothing.quantile_s(0.5))
