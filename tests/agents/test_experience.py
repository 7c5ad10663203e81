"""The correction of predicted regrets by the misses of a run."""

from math import exp, log
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.experience import Experience
from agents.regret import MISSED
from envs.cluster import RouterView

shares = st.floats(0.0, 1.0)


def view(now_s: float, finished: int, missed: int, unfinished: int = 0) -> RouterView:
    """A view with these counts."""
    counters = SimpleNamespace(finished_count=finished, missed_count=missed, decode_requests=[0, unfinished])
    return cast(RouterView, SimpleNamespace(now_s=now_s, counters=counters))


def begun(members: int = 3, unfinished: int = 0) -> Experience:
    """The experience at the start of a run."""
    experience = Experience(np.full(members, 0.4))
    experience.take_over(view(0.0, 0, 0, unfinished))
    return experience


@given(shares, st.integers(1, 5000))
def test_what_was_expected_changes_nothing(expected: float, finished: int) -> None:
    experience = begun()
    experience.learn(1, expected, view(1.0, finished, int(expected * finished)))
    assert not experience.excess.any()
    regret = np.array([0.1, 0.2, 0.3])
    assert np.array_equal(experience.corrected(regret), regret)


@given(expected=shares, share=shares, finished=st.integers(1, 5000))
def test_only_the_member_that_placed_the_requests_is_corrected_and_the_more_the_more_misses(
    expected: float, share: float, finished: int
) -> None:
    fewer, more = begun(), begun()
    fewer.learn(1, expected, view(1.0, finished, int(0.5 * share * finished)))
    more.learn(1, expected, view(1.0, finished, int(share * finished)))
    assert more.excess[1] >= fewer.excess[1] >= 0.0
    assert not more.excess[[0, 2]].any()


@pytest.mark.parametrize(("expected", "share"), [(0.0, 0.2), (0.01, 0.5), (0.2, 0.9)])
def test_after_many_requests_the_excess_is_the_difference_of_the_logarithms(expected: float, share: float) -> None:
    experience = begun()
    for number in range(1, 200):
        experience.learn(0, expected, view(number, 100 * number, int(100 * share) * number))
    difference = log((share + MISSED) / (expected + MISSED))
    assert experience.excess[0] == pytest.approx(difference - 0.3, rel=0.1)


@given(arrays(float, 3, elements=shares), arrays(float, 3, elements=st.floats(0.0, 2.0)))
def test_doubt_raises_low_predictions_towards_the_means_and_lowers_none(regret: np.ndarray, excess: np.ndarray) -> None:
    experience = begun()
    experience.excess = excess
    corrected = experience.corrected(regret)
    assert (corrected >= regret + excess).all()
    assert (corrected <= np.maximum(regret, 0.4) + excess).all()
    if excess.max() >= 1.0:
        assert corrected == pytest.approx(np.maximum(regret, 0.4) + excess)


def test_requests_of_the_member_before_do_not_count() -> None:
    experience = begun(unfinished=40)
    experience.learn(0, 0.0, view(1.0, 40, 40))
    assert not experience.excess.any()
    experience.learn(0, 0.0, view(2.0, 140, 40))
    assert not experience.excess.any()
    experience.learn(0, 0.0, view(3.0, 240, 140))
    assert experience.excess[0] > 0.5


def test_a_member_is_tried_again_when_its_excess_is_forgotten() -> None:
    experience = begun()
    experience.learn(0, 0.0, view(1.0, 500, 500))
    experience.take_over(view(1.0, 500, 500))
    before = experience.excess[0]
    experience.learn(1, 0.0, view(3001.0, 600, 500))
    assert experience.excess[0] == pytest.approx(before * exp(-1.0))
    assert experience.excess[1] == 0.0
