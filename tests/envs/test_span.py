"""Spans of steps, compared with sums step by step."""

from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster.span import Span, run_s, steps_up_to

ROUNDING = 1e-9


@dataclass(frozen=True)
class Steps:
    """A span's parameters; `ends_s` has its start and then the end of each step."""

    start_s: float
    steps: int
    first_s: float
    growth_s: float

    @property
    def lasting_s(self) -> list[float]:
        return [self.first_s + i * self.growth_s for i in range(self.steps)]

    @property
    def ends_s(self) -> list[float]:
        return list(accumulate(self.lasting_s, initial=self.start_s))

    @property
    def span(self) -> Span:
        span = Span()
        span.begin(self.start_s, self.steps, self.first_s, self.growth_s)
        return span


# A step grows by the attention of its decodes to one token each, and of its chunk to the previous chunk: by less than
# the first step takes.
made = st.builds(
    lambda start_s, steps, first_s, share: Steps(start_s, steps, first_s, share * first_s),
    start_s=st.floats(0, 10_000),
    steps=st.integers(1, 400),
    first_s=st.floats(2e-3, 1.0),
    share=st.one_of(st.just(0.0), st.floats(1e-9, 1.0)),
)
shares = st.floats(0, 1)


@given(made)
def test_times_of_boundaries_are_sums_of_steps(made: Steps) -> None:
    span = made.span
    assert [span.boundary_s(k) for k in range(made.steps + 1)] == pytest.approx(made.ends_s, rel=1e-12, abs=1e-12)
    assert span.end_s == span.boundary_s(made.steps)
    assert run_s(made.steps, made.first_s, made.growth_s) == pytest.approx(sum(made.lasting_s))


@given(made, shares)
def test_the_boundary_is_the_first_at_or_after_now(made: Steps, share: float) -> None:
    span = made.span
    now_s = min(made.start_s + share * (span.end_s - made.start_s), span.end_s)
    steps, time_s = span.boundary(now_s)
    assert 0 <= steps <= made.steps
    assert time_s == span.boundary_s(steps) >= now_s
    assert steps == 0 or span.boundary_s(steps - 1) < now_s
    # The sum step by step gives the same unless now is a boundary up to rounding.
    if min(abs(end_s - now_s) for end_s in made.ends_s) > ROUNDING:
        assert steps == sum(end_s < now_s for end_s in made.ends_s)


@given(made, st.data())
def test_a_boundary_at_now_counts(made: Steps, data: st.DataObject) -> None:
    span = made.span
    steps = data.draw(st.integers(0, made.steps))
    assert span.boundary(span.boundary_s(steps)) == (steps, span.boundary_s(steps))


@given(made, st.floats(-0.1, 1.1))
def test_finished_steps_are_those_that_end_by_now(made: Steps, share: float) -> None:
    span = made.span
    now_s = made.start_s + share * (span.end_s - made.start_s)
    over = span.steps_over(now_s)
    if min(abs(end_s - now_s) for end_s in made.ends_s) > ROUNDING:
        assert over == sum(end_s < now_s for end_s in made.ends_s[1:])


@given(made, st.data())
def test_a_step_that_ends_now_is_finished(made: Steps, data: st.DataObject) -> None:
    span = made.span
    steps = data.draw(st.integers(0, made.steps))
    assert span.steps_over(span.boundary_s(steps)) == steps


@given(made, st.floats(0, 5))
def test_the_number_of_steps_within_a_limit_equals_a_count(made: Steps, limit_s: float) -> None:
    found = steps_up_to(limit_s, made.steps, made.first_s, made.growth_s)
    least, most = (sum(step_s <= limit_s + near for step_s in made.lasting_s) for near in (-ROUNDING, ROUNDING))
    assert least <= found <= most


@given(made)
def test_an_idle_span_has_no_steps_and_a_copy_is_independent(made: Steps) -> None:
    span = made.span
    twin = span.copy()
    span.begin(made.start_s, 0, 0.0, 0.0)
    assert span.steps == span.steps_over(made.start_s + 1.0) == 0
    assert (twin.start_s, twin.steps, twin.first_s, twin.growth_s) == (
        made.start_s,
        made.steps,
        made.first_s,
        made.growth_s,
    )
    assert twin.end_s == twin.boundary_s(made.steps)
