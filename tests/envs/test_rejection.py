"""A rejected request has a record and leaves no other trace."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig, Disturbance, Placement, RequestRecord, RequestView, RouterView, simulate
from envs.generators import generate
from envs.workload import Workload
from tests.envs.shared_prefixes import Given
from tests.toy import toy_profile


class Choosy:
    """Another policy that also rejects given requests."""

    name = "choosy"

    def __init__(self, rejects: set[int], rule: str = "kairos", until_s: float = float("inf")) -> None:
        self.rejects = rejects
        self.until_s = until_s
        self.policy = policies.make(rule)

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        if request.number in self.rejects or view.now_s > self.until_s:
            return None
        return self.policy.place(request, view)


WORKLOAD = generate("burst", rate_rps=16.0, requests=80, seed=4)


def without(workload: Workload, gone: set[int]) -> Workload:
    kept = [number for number in range(len(workload)) if number not in gone]
    return Workload.of(
        workload.arrival_s[kept], workload.prompt_tokens[kept], workload.output_tokens[kept], label="what was taken in"
    )


def is_rejected(record: RequestRecord) -> bool:
    stamps = record[7:12]  # prefill_start_s to last_token_s
    return record.prefill_node == record.decode_node == -1 and not record.deflected and all(map(isnan, stamps))


@settings(max_examples=25)
@given(gone=st.sets(st.integers(0, 79), min_size=1, max_size=60))
def test_a_run_equals_that_of_the_accepted_requests(gone: set[int]) -> None:
    config = ClusterConfig(toy_profile())
    result = simulate(WORKLOAD, Choosy(gone), config)
    alone = simulate(without(WORKLOAD, gone), Choosy(set()), config)
    assert [record.request for record in result.records] == list(range(80))
    assert {record.request for record in result.records if is_rejected(record)} == gone
    taken_in = [record for record in result.records if record.request not in gone]
    assert [record[1:] for record in taken_in] == [record[1:] for record in alone.records]
    assert result.counters.busy_s == alone.counters.busy_s
    assert result.counters.kv_bytes_moved == alone.counters.kv_bytes_moved


def test_the_record_has_the_requests_lengths_and_no_times() -> None:
    record = simulate(WORKLOAD, Choosy({5}), ClusterConfig(toy_profile())).records[5]
    assert is_rejected(record)
    asked = (WORKLOAD.arrival_s[5], WORKLOAD.prompt_tokens[5], WORKLOAD.output_tokens[5])
    assert (record.arrival_s, record.prompt_tokens, record.output_tokens) == asked


def test_streamed_records_include_rejected_requests() -> None:
    heard: list[RequestRecord] = []
    result = simulate(WORKLOAD, Choosy({0, 3}), ClusterConfig(toy_profile()), on_record=heard.append)
    assert result.records == []
    assert sorted(record.request for record in heard) == list(range(80))
    assert {record.request for record in heard if is_rejected(record)} == {0, 3}


def test_all_requests_may_be_rejected() -> None:
    result = simulate(WORKLOAD, Choosy(set(range(80))), ClusterConfig(toy_profile()), time_decisions=True)
    assert all(is_rejected(record) for record in result.records)
    assert len(result.decision_s) == 80
    assert sum(result.counters.busy_s) == 0.0


@pytest.mark.parametrize("rule", [*policies.names(), "lookahead:horizon=2"])
def test_requests_that_never_fit_are_rejected_under_every_policy(rule: str) -> None:
    workload = Workload.of([0.0, 0.1, 0.2], [1000, 1_000_000, 1000], [10] * 3, label="one too long")
    records = simulate(workload, policies.make(rule, seed=1), ClusterConfig(toy_profile())).records
    assert [is_rejected(record) for record in records] == [False, True, False]
    assert records[2].last_token_s > 0.2


@pytest.mark.parametrize(("output_tokens", "fits"), [(1999, True), (2000, False)])
def test_the_smallest_node_limits_the_length_of_requests(output_tokens: int, *, fits: bool) -> None:
    small, large = toy_profile(4000), replace(toy_profile(9000), name="toy, larger")
    config = ClusterConfig(large, shape="1P1D", node_profiles=(large, small))
    workload = Workload.of([0.0], [2000], [output_tokens], label="one")
    for placement in (Placement(0, 1), Placement(0, 0)):
        (record,) = simulate(workload, Given(placement), config).records
        assert is_rejected(record) is not fits


@settings(max_examples=25)
@given(long=st.sets(st.integers(0, 79), max_size=60))
def test_too_long_requests_do_not_affect_others(long: set[int]) -> None:
    prompts = [10**6 if number in long else tokens for number, tokens in enumerate(WORKLOAD.prompt_tokens.tolist())]
    workload = Workload.of(WORKLOAD.arrival_s, prompts, WORKLOAD.output_tokens, label="some too long")
    config = ClusterConfig(toy_profile())
    records = simulate(workload, policies.make("static"), config).records
    assert {record.request for record in records if is_rejected(record)} == long
    if len(long) < 80:
        alone = simulate(without(WORKLOAD, long), policies.make("static"), config)
        assert [record[1:] for record in records if record.request not in long] == [one[1:] for one in alone.records]


@pytest.mark.parametrize("node", [0, 3])
def test_accepted_requests_are_placed_again_even_if_rejected_then(node: int) -> None:
    lost_s = float(WORKLOAD.arrival_s[40])
    config = ClusterConfig(toy_profile(), disturbances=(Disturbance(lost_s + 1e-6, "loss", node),))
    result = simulate(WORKLOAD, Choosy(set(), "static", until_s=lost_s), config)
    assert result.counters.displaced > 0
    rejected = [is_rejected(record) for record in result.records]
    assert rejected == (WORKLOAD.arrival_s > lost_s).tolist()
    assert not any(isnan(record.last_token_s) for record in result.records[:41])
    assert np.isfinite(result.end_s)
