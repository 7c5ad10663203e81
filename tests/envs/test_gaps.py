"""The log of gaps between tokens, and the longest step since a given step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, GapLog, Placement, simulate
from envs.cluster.gaps import SuffixMax, segment
from envs.workload import Workload
from tests.envs.reference import Reference
from tests.envs.shared_prefixes import Given
from tests.toy import TOY_LAW, toy_profile

segments = st.lists(
    st.tuples(st.floats(0, 1e6), st.integers(1, 10**6), st.floats(1e-3, 10.0), st.floats(0, 1e-3), st.integers(1, 256)),
    max_size=20,
)


@given(segments=segments)
def test_logged_segments_are_read_back_by_name(segments: list[tuple[float, int, float, float, int]]) -> None:
    log = GapLog()
    for values in segments:
        log.append(segment(*values))
    assert log.columns().shape == (len(segments), 5)
    names = ("start_s", "steps", "first_s", "growth_s", "weight")
    for index, name in enumerate(names):
        assert getattr(log, name).tolist() == [values[index] for values in segments]
    assert log.steps.dtype == log.weight.dtype == np.int64


def test_columns_are_a_copy_and_the_log_can_still_grow() -> None:
    log = GapLog()
    log.append(segment(0.0, 1.0, 0.01, 0.0, 1.0))
    columns = log.columns()
    columns[:] = 7.0
    log.append(segment(1.0, 2.0, 0.02, 0.0, 3.0))  # an array("d") with an exported buffer cannot grow
    assert log.steps.tolist() == [1, 2]


def test_a_lone_request_is_one_segment_of_growing_steps() -> None:
    workload = Workload.of([0.0], [1000], [50], label="one")
    result = simulate(workload, Given(Placement(0, 1)), ClusterConfig(toy_profile(), shape="1P1D"))
    (start_s, steps, first_s, growth_s, weight), *rest = result.gaps.columns()
    assert not rest
    assert (steps, weight) == (49, 1)
    assert start_s == pytest.approx(result.records[0].first_token_s)
    assert first_s == pytest.approx(TOY_LAW.time_s((), 1, 1001))
    assert growth_s == pytest.approx(TOY_LAW.decode_kv_s[1])


@given(
    seed=st.integers(0, 2**32),
    capacity=st.sampled_from([9_000, 400_000]),
)
def test_segments_count_the_gaps_of_a_run_and_their_time(seed: int, capacity: int) -> None:
    rng = np.random.default_rng(seed)
    prompts = rng.permutation(np.unique(np.geomspace(10, 3000, 60).astype(int)))[:12]
    workload = Workload.of(np.cumsum(rng.exponential(0.05, 12)), prompts, rng.integers(1, 200, 12), label="random")
    placements = [Placement(0, 1) for _ in range(12)]
    config = ClusterConfig(toy_profile(capacity), shape="1P1D")
    gaps = simulate(workload, Given(*placements), config).gaps
    jobs = Reference(workload, placements, config).run().jobs
    assert (gaps.steps * gaps.weight).sum() == sum(len(job.tokens_s) - 1 for job in jobs)
    sums_s = gaps.steps * gaps.first_s + gaps.growth_s * gaps.steps * (gaps.steps - 1) / 2
    assert (sums_s * gaps.weight).sum() == pytest.approx(sum(job.tokens_s[-1] - job.tokens_s[0] for job in jobs))


# ---- the longest step since ------------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9).map(float)), min_size=1, max_size=30)


@given(runs=runs, data=st.data())
def test_the_longest_step_since_a_step_is_the_maximum_of_later_ones(
    runs: list[tuple[int, float]], data: st.DataObject
) -> None:
    longest = SuffixMax()
    steps: list[float] = []
    forgotten = 0
    for count, value in runs:
        steps += [value] * count
        longest.push(len(steps), value)
        since = data.draw(st.integers(forgotten, len(steps) - 1))
        assert longest.since(since) == max(steps[since:])
        if data.draw(st.booleans()):
            forgotten = since
            longest.forget_before(forgotten)
            assert longest.since(forgotten) == max(steps[forgotten:])


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_only_decreasing_values_are_kept(values: list[float]) -> None:
    longest = SuffixMax()
    for step, value in enumerate(values, start=1):
        longest.push(step, value)
    assert longest.values == sorted(set(longest.values), reverse=True)
    assert len(longest.ends) == len(longest.values) <= len(set(values))
