"""A watched run equals an unwatched one, and its samples agree with records and counters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, Placement, Request, RequestRecord, RunResult, Samples, Watch, simulate
from envs.cluster.clock import Clock
from envs.cluster.network import Network
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import InputError, Link
from tests.toy import TOY_LAW, toy_profile


def play(
    rule: str, seed: int, config: ClusterConfig, drain_s: float, watch: Watch | None = None
) -> tuple[Workload, RunResult]:
    workload = generate("burst", rate_rps=18.0, requests=120, seed=seed, max_prompt_tokens=5_000)
    return workload, simulate(workload, policies.make(rule), config, drain_s=drain_s, watch=watch)


def watched(rule: str, seed: int, interval_s: float, drain_s: float = float("inf")) -> tuple[Samples, RunResult]:
    watch = Watch(interval_s)
    _, result = play(rule, seed, ClusterConfig(toy_profile()), drain_s, watch)
    return watch.samples, result


rules = st.sampled_from(["static", "kairos", "always-local"])
seeds = st.integers(0, 1000)
intervals_s = st.floats(0.01, 20.0)


@settings(max_examples=25)
@given(
    rule=rules,
    seed=seeds,
    interval_s=intervals_s,
    capacity=st.sampled_from([7_000, 400_000]),
    streams=st.booleans(),
    drain_s=st.sampled_from([0.0, 1.0, float("inf")]),
)
def test_a_watched_run_equals_an_unwatched_one(
    rule: str, seed: int, interval_s: float, capacity: int, streams: bool, drain_s: float
) -> None:
    config = ClusterConfig(toy_profile(capacity), kv_streaming=streams)
    _, alone = play(rule, seed, config, drain_s)
    _, seen = play(rule, seed, config, drain_s, Watch(interval_s))
    assert repr(seen.records) == repr(alone.records)  # nan is not equal to itself
    assert seen.gaps.columns().tobytes() == alone.gaps.columns().tobytes()
    assert (seen.counters, seen.end_s) == (alone.counters, alone.end_s)


@settings(max_examples=25)
@given(rule=rules, seed=seeds, interval_s=intervals_s, drain_s=st.sampled_from([0.0, 0.7, float("inf")]))
def test_samples_are_at_the_interval_and_at_the_end(rule: str, seed: int, interval_s: float, drain_s: float) -> None:
    samples, result = watched(rule, seed, interval_s, drain_s)
    *regular, last_s = samples.time_s.tolist()
    assert regular == [i * interval_s for i in range(len(regular))]
    assert last_s == result.end_s
    assert 0 < last_s - regular[-1] <= interval_s


@settings(max_examples=25)
@given(rule=rules, seed=seeds, interval_s=intervals_s)
def test_queued_prompts_have_arrived_and_are_not_computed(rule: str, seed: int, interval_s: float) -> None:
    samples, result = watched(rule, seed, interval_s)
    for i, at_s in enumerate(samples.time_s.tolist()):
        queued = [row for row in result.records if row.arrival_s < at_s <= row.prefill_end_s]
        for node in range(4):
            tokens = [row.prompt_tokens for row in queued if row.prefill_node == node]
            assert samples.queued_prompts[i, node] == len(tokens)
            assert samples.queued_prompt_tokens[i, node] == sum(tokens)


@settings(max_examples=25)
@given(rule=rules, seed=seeds, interval_s=intervals_s)
def test_busy_shares_add_up_to_the_time_in_steps(rule: str, seed: int, interval_s: float) -> None:
    samples, result = watched(rule, seed, interval_s)
    share = samples.busy_share
    assert (share >= -1e-12).all()
    assert (share <= 1 + 1e-9).all()
    added_s = (share[1:] * np.diff(samples.time_s)[:, None]).sum(axis=0)
    assert added_s == pytest.approx(result.counters.busy_s, rel=1e-9)
    # A node that is busy at a sample has been busy for some of the time since the previous one.
    assert ((samples.step_s[1:-1] == 0) | (samples.busy_s[2:] > samples.busy_s[1:-1])).all()


def test_one_request_equals_a_hand_computation() -> None:
    """A prompt of 2048 tokens is computed, sent, and gives three tokens."""
    computed_s = TOY_LAW.time_s([(2048, 0)], 0, 0)
    sent_s = computed_s + 1e-4 + 2048 * 100_000 / 20e9
    steps_s = [TOY_LAW.time_s((), 1, 2048 + i) for i in range(3)]
    workload = Workload.of([0.0], [2048], [3], label="by hand", tbt_slo_s=0.05)
    watch = Watch(0.001)
    simulate(workload, policies.make("static"), ClusterConfig(toy_profile(), shape="1P1D"), watch=watch)
    samples = watch.samples
    assert samples.prefill_nodes == 1
    for i, at_s in enumerate(samples.time_s[1:].tolist(), start=1):
        queued = at_s <= computed_s
        assert samples.queued_prompt_tokens[i].tolist() == [2048 * queued, 0]
        assert samples.busy_s[i, 0] == pytest.approx(min(at_s, computed_s))
        assert samples.step_s[i, 0] == (computed_s if at_s < computed_s else 0.0)
        assert samples.kv_share[i, 0] == (2048 / 400_000 if at_s <= sent_s else 0.0)
        to_send = min(1.0, (sent_s - at_s) / (sent_s - computed_s)) * (2048 * 100_000 + 1e-4 * 20e9)
        expected = max(0.0, to_send) if at_s > computed_s else 0.0
        assert samples.sending_bytes[i].tolist() == pytest.approx([expected, 0.0], abs=1e-3)
        assert samples.receiving_bytes[i].tolist() == pytest.approx([0.0, expected], abs=1e-3)
        done = int(np.searchsorted(np.cumsum(steps_s), at_s - sent_s + 1e-9, side="right"))
        decoding = sent_s < at_s and done < 3
        assert samples.decode_batch[i, 1] == decoding
        if decoding:
            assert samples.step_s[i, 1] == pytest.approx(steps_s[done])
            assert samples.decode_slack[i, 1] == pytest.approx(1 - steps_s[done] / 0.05)
            assert samples.kv_used_tokens[i, 1] == 2048 + done
            assert samples.busy_s[i, 1] == pytest.approx(at_s - sent_s)
        assert np.isnan(samples.decode_slack[i, 0])


def test_a_shared_nic_counts_for_each_of_its_nodes() -> None:
    clock = Clock()
    link = Link(0.0, 1e9, "made up")
    network = Network(clock.timeline, (0, 1, 2, 2), (0, 0, 1, 2), link, link, lambda _: None)
    first, second, third, fourth = (Request(i, 0.0, 10, 10, 2.0, 0.1) for i in range(4))
    network.start(first, 0, 2, 4e9, 0.0)
    network.start(second, 1, 3, 1e9, 0.0)  # over the NIC that node 0 uses, too
    network.start(third, 2, 3, 2e9, 0.0)  # over NVLink
    network.start(fourth, 3, 2, 1e9, 2.0)  # not started yet
    assert network.backlog_bytes() == ([5e9, 5e9, 2e9, 0.0], [0.0, 0.0, 4e9, 3e9])
    clock.advance_to(1.0)  # the first two had half a NIC each, the third its whole link
    sending, receiving = network.backlog_bytes()
    assert sending == pytest.approx([4e9, 4e9, 1e9, 0.0])
    assert receiving == pytest.approx([0.0, 0.0, 3.5e9, 1.5e9])


def test_a_copy_of_a_watched_cluster_is_not_watched() -> None:
    records: list[RequestRecord] = []
    watch = Watch(0.01)
    cluster = Cluster(ClusterConfig(toy_profile()), records.append)
    advance_to, drain = watch.over(cluster)
    for i in range(20):
        advance_to(0.05 * i)
        cluster.submit(Request(i, 0.05 * i, 1500, 30, 2.0, 0.1), Placement(i % 2, 2 + i % 2))
    before = watch.samples.time_s
    finished = list(records)
    copied: list[RequestRecord] = []
    twin = cluster.copy(copied.append)
    twin.clock.drain(float("inf"))
    assert len(watch.samples.time_s) == len(before)
    drain(float("inf"))
    assert finished + copied == records
    assert len(records) == 20


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("inf"), float("nan")])
def test_an_invalid_interval_is_an_error(interval_s: float) -> None:
    with pytest.raises(InputError, match="watch interval"):
        Watch(interval_s)
