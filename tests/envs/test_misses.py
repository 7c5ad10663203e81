"""The number of requests that have missed an SLO, compared with a count token by token."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, Placement, Policy, Request, RequestRecord, simulate
from envs.generators import generate
from envs.slos import SloClass, Slos
from envs.workload import Workload
from experiments.analysis.request_table import Attainment, as_array
from tests.envs.played import Played
from tests.envs.reference import Reference
from tests.envs.reference_engine import Job
from tests.envs.scenarios import Scenario, Scripted, scenarios
from tests.envs.shared_prefixes import Given
from tests.envs.test_rejection import Choosy
from tests.toy import toy_profile

RULES = ["scripted", "static", "kairos", "shortest-ttft"]


@st.composite
def with_ttft_slos(draw: st.DrawFn, most_requests: int = 25) -> Scenario:
    """A scenario in which some requests miss their TTFT SLO."""
    scenario = draw(scenarios(most_requests=most_requests))
    workload = scenario.workload
    rng = np.random.default_rng(scenario.seed)
    ttft_slo_s = draw(st.sampled_from([0.05, 0.3, 2.0, 10.0])) * rng.uniform(0.5, 1.5, len(workload))
    return replace(scenario, workload=workload.with_slos(ttft_slo_s, workload.tbt_slo_s))


def instants(scenario: Scenario, count: int) -> list[float]:
    """Random times of a run, in order."""
    rng = np.random.default_rng([scenario.seed, 1])
    span_s = float(scenario.workload.arrival_s[-1])
    return sorted([*rng.uniform(0.0, span_s, count), *(span_s + rng.exponential(2.0, count))])


def played_at(played: Played, times_s: Iterable[float]) -> Iterable[tuple[float, int]]:
    for time_s in times_s:
        played.play(until_s=time_s).cluster.clock.advance_to(time_s)
        yield time_s, played.cluster.misses()


def missed(job: Job, ttft_slo_s: float, now_s: float) -> bool:
    """Whether a request has missed an SLO, from the times of its tokens."""
    first_s = job.tokens_s[0] if job.tokens_s else now_s
    return first_s - job.arrival_s > ttft_slo_s or max(np.diff(job.tokens_s), default=0.0) > job.tbt_slo_s


def recounted(scenario: Scenario, times_s: Iterable[float]) -> Iterable[int]:
    placements = list(scenario.placements)
    reference = Reference(scenario.workload, placements, scenario.config, place_again=scenario.place_again)
    ttft_slo_s = scenario.workload.ttft_slo_s
    for time_s in times_s:
        while (next_s := reference.next_s()) <= time_s:
            reference.play(next_s)
        arrived = [job for job in reference.jobs if job.arrival_s < time_s]
        yield sum(missed(job, float(ttft_slo_s[job.number]), time_s) for job in arrived)


def assert_counted(scenario: Scenario) -> None:
    times_s = instants(scenario, 12)
    played = Played(scenario, Scripted(scenario))
    for (time_s, counted), expected in zip(played_at(played, times_s), recounted(scenario, times_s), strict=True):
        assert counted == expected, time_s


@settings(max_examples=60)
@given(scenario=with_ttft_slos(most_requests=15))
def test_the_count_of_a_short_run_equals_a_recount_step_by_step(scenario: Scenario) -> None:
    assert_counted(scenario)


@pytest.mark.slow
@settings(max_examples=150)
@given(scenario=with_ttft_slos(most_requests=40))
def test_the_count_equals_a_recount_step_by_step(scenario: Scenario) -> None:
    assert_counted(scenario)


@settings(max_examples=60)
@given(scenario=with_ttft_slos(), rule=st.sampled_from(RULES))
def test_the_count_never_falls_and_ends_at_the_records_count(scenario: Scenario, rule: str) -> None:
    policy: Policy = Scripted(scenario) if rule == "scripted" else policies.make(rule, seed=7)
    played = Played(scenario, policy)
    counts = [count for _, count in played_at(played, instants(scenario, 12))]
    played.play().assert_drained()
    counts.append(played.cluster.misses())
    assert counts == sorted(counts)
    workload = scenario.workload
    met = Attainment.of(as_array(played.records), workload.ttft_slo_s, workload.tbt_slo_s).both
    assert counts[-1] == np.count_nonzero(~met)


@settings(max_examples=60)
@given(scenario=with_ttft_slos(), rule=st.sampled_from(RULES), cut=st.floats(0.0, 1.5))
def test_a_copy_counts_like_the_original(scenario: Scenario, rule: str, cut: float) -> None:
    policy: Policy = Scripted(scenario) if rule == "scripted" else policies.make(rule, seed=7)
    original = Played(scenario, policy, places_again=False)
    cut_s = cut * float(scenario.workload.arrival_s[-1])
    original.play(until_s=cut_s)
    twin = original.copy()
    times_s = [time_s for time_s in instants(scenario, 6) if time_s >= cut_s]
    assert twin.cluster.misses() == original.cluster.misses()
    assert list(played_at(twin, times_s)) == list(played_at(original, times_s))


def test_a_miss_counts_when_the_ttft_slo_has_passed() -> None:
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    cluster.submit(Request(0, 0.0, 30_000, 10, 0.5, 0.1), Placement(0, 2))
    for time_s, expected in ((0.4, 0), (0.5, 0), (0.5001, 1), (100.0, 1)):
        cluster.clock.advance_to(time_s)
        assert cluster.misses() == expected


def test_a_miss_counts_only_when_the_long_gap_ends() -> None:
    workload = Workload.of([0.0], [1000], [50], label="one", tbt_slo_s=0.001)  # every step is longer
    (record,) = simulate(workload, Given(Placement(0, 2)), ClusterConfig(toy_profile())).records
    second_token_s = record.first_token_s + record.tbt_max_s
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    cluster.submit(Request(0, *workload.rows()[0]), Placement(0, 2))
    for time_s, expected in ((record.first_token_s + 1e-6, 0), (second_token_s + 1e-6, 1)):
        cluster.clock.advance_to(time_s)
        assert cluster.misses() == expected


def test_rejected_requests_count_as_misses() -> None:
    workload = generate("LPLD", rate_rps=1.0, requests=80, seed=4, slos=Slos.of(1000.0, 10.0))
    result = simulate(workload, Choosy({1, 5}), ClusterConfig(toy_profile()))
    assert result.counters.misses == 2
    long = Workload.of([0.0, 0.1], [10**6, 100], [10, 10], label="one too long")
    assert simulate(long, policies.make("static"), ClusterConfig(toy_profile())).counters.misses == 1


def test_requests_of_several_classes_have_their_own_slos() -> None:
    slos = Slos((SloClass(0.2, 0.02, share=0.4), SloClass(5.0, 0.2, share=0.6)))
    workload = generate("burst", rate_rps=14.0, requests=200, seed=2, slos=slos)
    heard: list[RequestRecord] = []
    result = simulate(workload, policies.make("kairos"), ClusterConfig(toy_profile()), on_record=heard.append)
    met = Attainment.of(as_array(heard), workload.ttft_slo_s, workload.tbt_slo_s).both
    assert result.counters.misses == np.count_nonzero(~met) > 0
