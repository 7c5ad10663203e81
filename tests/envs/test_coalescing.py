"""The engine against the reference with one event per step, with random values of all options."""

import numpy as np
import pytest
from hypothesis import given, settings

from envs.cluster import RunResult, simulate
from tests.envs.reference import Reference
from tests.envs.scenarios import Scenario, Scripted, scenarios

CLOSE_S = 1e-7

COUNTERS = (
    "preemptions",
    "displaced",
    "kv_expired",
    "chunk_steps",
    "chunk_steps_over_slo",
    "over_slo_decode_alone",
    "over_slo_minimum",
    "kv_bytes_moved",
    "prefix_hit_tokens",
)


def close(expected: object) -> object:
    """Equal up to rounding; a stamp that is missing in one must be missing in the other."""
    return pytest.approx(expected, abs=CLOSE_S, rel=0.0, nan_ok=True)


def logged_gaps_s(result: RunResult) -> np.ndarray:
    """Every gap of a run's log, sorted."""
    segments = [
        np.repeat(first + growth * np.arange(int(steps)), int(weight))
        for _, steps, first, growth, weight in result.gaps.columns()
    ]
    return np.sort(np.concatenate([np.zeros(0), *segments]))


def assert_same(result: RunResult, reference: Reference) -> None:
    """A run and the reference agree on every request and every counter."""
    assert len(result.records) == len(reference.jobs)
    for record, job in zip(result.records, reference.jobs, strict=True):
        tokens_s = job.tokens_s or [np.nan]
        found = (*record[7:12], record.tbt_max_s)
        stamps = (job.prefill_start_s, job.prefill_end_s, job.kv_ready_s, tokens_s[0])
        last_s = tokens_s[-1] if len(job.tokens_s) == job.output else np.nan
        assert found == close((*stamps, last_s, max(np.diff(tokens_s), default=0.0))), f"request {job.number}"
        where = (record.prefill_node, record.decode_node, record.preemptions)
        assert where == (job.prefill_node, job.decode_node, job.preemptions), f"request {job.number}"
    counted = {name: getattr(result.counters, name) for name in COUNTERS}
    assert counted == {name: reference.counts[name] for name in COUNTERS}
    assert result.counters.busy_s == close(tuple(node.busy_s for node in reference.nodes))
    gaps_s = np.concatenate([np.diff(job.tokens_s) for job in reference.jobs])
    assert logged_gaps_s(result) == close(np.sort(gaps_s))


def play_both(scenario: Scenario) -> None:
    """Play a scenario with the engine and with the reference, and compare."""
    result = simulate(scenario.workload, Scripted(scenario), scenario.config)
    reference = Reference(
        scenario.workload, list(scenario.placements), scenario.config, place_again=scenario.place_again
    )
    assert_same(result, reference.run())


@settings(max_examples=60)
@given(scenario=scenarios(most_requests=15))
def test_a_short_run_equals_the_reference_for_all_options(scenario: Scenario) -> None:
    play_both(scenario)


@pytest.mark.slow
@settings(max_examples=250)
@given(scenario=scenarios())
def test_a_run_equals_the_reference_for_all_options(scenario: Scenario) -> None:
    play_both(scenario)
