"""When a finding agrees with a claim of the paper, and the cost of a chunk."""

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.bootstrap import Interval
from experiments.analysis.paper.paper_claims import CONTEXT_TOKENS, added_s, crossing, model_errors, up_to, within
from hardware_profiles import load_profile
from tests.toy import TOY_LAW, toy_profile


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        ([Interval(0.1, 0.05, 0.2)], "yes"),
        ([Interval(0.1, nan, nan)], "yes"),
        ([Interval(0.3, 0.2, 0.4)], "overlaps"),
        ([Interval(0.1, 0.05, 0.2), Interval(0.3, 0.25, 0.4)], "in 1 of 2"),
        ([Interval(0.3, 0.25, 0.4)], "no"),
        ([Interval(0.3, nan, nan)], "no"),
    ],
)
def test_a_share_agrees_if_it_is_in_the_claimed_band(found: list[Interval], agrees: str) -> None:
    assert within(found, 0.02, 0.23) == agrees


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        (Interval(0.8, 0.75, 0.85), "yes"),
        (Interval(0.9, 0.85, 0.95), "larger here"),
        (Interval(0.5, 0.4, 0.6), "smaller here"),
        (Interval(0.75, 0.72, 0.78), "yes"),
        (Interval(0.1, -0.9, 0.9), "undecided"),
        (Interval(-0.1, -0.3, 0.1), "smaller here"),
        (Interval(0.9, nan, nan), "larger here"),
    ],
)
def test_an_improvement_agrees_with_one_of_two_numbers(found: Interval, agrees: str) -> None:
    assert up_to(found, (0.71, 0.79)) == agrees


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0.05, 0.95))
def test_a_crossing_is_on_the_curve_and_no_later_point_is_above(values: list[float], level: float) -> None:
    curve = [(float(i), value) for i, value in enumerate(values)]
    x = crossing(curve, level)
    if x is None:
        assert values[-1] > level
        return
    assert all(value <= level for at, value in curve if at > x)
    if x > 0:
        i = min(int(x), len(values) - 2) if x != int(x) else max(int(x) - 1, 0)
        between = values[i] + (values[i + 1] - values[i]) * (x - i)
        assert between == pytest.approx(level)


def test_a_curve_that_is_nowhere_above_crosses_at_its_first_point() -> None:
    assert crossing([(0.2, 0.1), (0.5, 0.2)], 0.23) == 0.2
    assert crossing([(0.0, 0.5), (1.0, 0.1)], 0.3) == pytest.approx(0.5)
    assert crossing([], 0.3) is None


def test_a_chunk_adds_the_time_of_the_toy_law() -> None:
    # 50 us per token, 1 ms per chunk, 2.5 ns per squared token, 5 ns per token of chunk and context.
    assert added_s(TOY_LAW, 512, batch=8) == pytest.approx(512 * 50e-6 + 0.001 + 2.5e-9 * 512**2)
    later = added_s(TOY_LAW, 512, batch=8, done_tokens=1000)
    assert later - added_s(TOY_LAW, 512, batch=8) == pytest.approx(5e-9 * 512 * 1000)


def test_the_decodes_next_to_a_chunk_are_in_both_steps() -> None:
    alone_s = TOY_LAW.time_s((), 8, 8 * CONTEXT_TOKENS)
    both_s = TOY_LAW.time_s([(64, 0)], 8, 8 * CONTEXT_TOKENS)
    assert added_s(TOY_LAW, 64, batch=8) == both_s - alone_s


def test_errors_of_a_step_law_are_those_that_its_profile_states() -> None:
    errors = model_errors(load_profile("a100-qwen3-8b"))
    assert {"prefill", "decode"} <= set(errors)
    assert model_errors(toy_profile()) == {}
