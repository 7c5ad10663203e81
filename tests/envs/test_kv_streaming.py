"""KV streaming: each chunk's KV is sent while later chunks are computed."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, Disturbance, Placement, Request, RequestRecord, RunResult, simulate
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import Link, Profile
from tests.envs.shared_prefixes import Given, Watched, assert_sound, conversations, rows, without_hashes
from tests.toy import TOY_LAW, toy_profile

KV_BYTES = 100_000
LATENCY_S = 1e-4

FROM_0_TO_1 = Placement(0, 1)

# From a link slower than any prefill to one that always waits for KV.
bandwidths = st.sampled_from([0.5e9, 2e9, 5e9, 20e9, 500e9])


def profile(bandwidth: float, capacity: int = 400_000) -> Profile:
    return replace(toy_profile(capacity), inter_node=Link(LATENCY_S, bandwidth, "made up"))


def alone(prompt: int, bandwidth: float, placement: Placement = FROM_0_TO_1, **config: object) -> RequestRecord:
    workload = Workload.of([0.0], [prompt], [3], label="one")
    return simulate(workload, Given(placement), ClusterConfig(profile(bandwidth), shape="1P1D", **config)).records[0]


def whole_blocks(tokens: int, prompt: int, block: int) -> int:
    return -(-tokens // block) * block if tokens == prompt else tokens // block * block


@settings(max_examples=80)
@given(prompt=st.integers(1, 30_000), bandwidth=bandwidths, block=st.sampled_from([1, 16, 300, 3000]))
def test_zero_load_parts_are_sent_in_the_order_of_computation(prompt: int, bandwidth: float, block: int) -> None:
    record = alone(prompt, bandwidth, kv_streaming=True, kv_block_tokens=block)
    ends_s = np.cumsum([TOY_LAW.time_s([(min(2048, prompt - i), i)], 0, 0) for i in range(0, prompt, 2048)])
    ready = [whole_blocks(min(prompt, 2048 * (i + 1)), prompt, block) for i in range(len(ends_s))]
    sent = 0
    free_s = 0.0
    for i, end_s in enumerate(ends_s):
        # KV that is computed when the link becomes free is sent as one part.
        if ready[i] > sent and (i + 1 == len(ends_s) or ends_s[i + 1] > max(free_s, end_s)):
            free_s = max(free_s, end_s) + LATENCY_S + (ready[i] - sent) * KV_BYTES / bandwidth
            sent = ready[i]
    assert record.prefill_end_s == pytest.approx(ends_s[-1])
    assert record.kv_ready_s == pytest.approx(free_s)
    assert record.first_token_s - record.kv_ready_s == pytest.approx(TOY_LAW.time_s((), 1, prompt))


@settings(max_examples=80)
@given(prompt=st.integers(1, 30_000), bandwidth=bandwidths)
def test_zero_load_streaming_is_never_slower_and_within_the_bound(prompt: int, bandwidth: float) -> None:
    plain, streamed = (alone(prompt, bandwidth, kv_streaming=on) for on in (False, True))
    assert streamed.prefill_end_s == pytest.approx(plain.prefill_end_s)
    assert streamed.kv_ready_s <= plain.kv_ready_s + 1e-9
    blocks = -(-prompt // 16) * 16
    chunks = -(-prompt // 2048)
    last = blocks - (chunks - 1) * 2048
    first_end_s = TOY_LAW.time_s([(min(2048, prompt), 0)], 0, 0)
    # All KV after the first chunk, and the last chunk's KV after the prefill.
    assert streamed.kv_ready_s >= first_end_s + LATENCY_S + blocks * KV_BYTES / bandwidth - 1e-9
    assert streamed.kv_ready_s >= streamed.prefill_end_s + LATENCY_S + last * KV_BYTES / bandwidth - 1e-9
    if chunks == 1:
        assert streamed == plain


def test_a_deflected_prompt_streams_nothing() -> None:
    for placement, budget in ((Placement(1, 1), "slo"), (Placement(1, 1, (512,)), "fixed")):
        plain, streamed = (alone(20_000, 2e9, placement, kv_streaming=on, step_budget=budget) for on in (False, True))
        assert streamed == plain


def test_a_full_decode_node_makes_parts_wait_for_room() -> None:
    # The second prompt gets room when the first request finishes, long after its own prefill.
    workload = Workload.of([0.0, 0.0], [6000, 6000], [200, 3], label="two")
    config = ClusterConfig(profile(20e9, 7_000), shape="2P1D", kv_streaming=True)
    result = simulate(workload, Given(Placement(0, 2), Placement(1, 2)), config)
    first, second = result.records
    assert_sound(workload, result.records)
    assert second.prefill_end_s < first.last_token_s
    assert second.kv_ready_s == pytest.approx(first.last_token_s + LATENCY_S + 6000 * KV_BYTES / 20e9)


@pytest.mark.parametrize("streaming", [False, True])
def test_room_for_a_lost_senders_kv_goes_to_the_next_request(streaming: bool) -> None:
    workload = Workload.of([0.0, 0.0], [6000, 6000], [3, 3], label="two")
    config = ClusterConfig(
        profile(0.5e9, 7_000), shape="2P1D", kv_streaming=streaming, disturbances=(Disturbance(1.0, "loss", 0),)
    )
    records: list[RequestRecord] = []
    cluster = Cluster(config, records.append)  # places displaced requests on the shortest queue
    for number, request in enumerate(rows(workload)):
        cluster.submit(Request(number, *request), Placement(number, 2))
    cluster.clock.drain(inf)
    assert_sound(workload, sorted(records))
    assert cluster.lifecycle.displaced == 1


# ---- under load -----------------------------------------------------------------------------------------------------


def run(rule: str, streaming: bool, bandwidth: float = 5e9, **config: object) -> RunResult:
    workload = generate("burst", rate_rps=8.0, requests=300, seed=3)
    return simulate(workload, policies.make(rule), ClusterConfig(profile(bandwidth), kv_streaming=streaming, **config))


def test_streaming_moves_the_same_bytes_and_hides_their_time() -> None:
    plain, streamed = run("static", False), run("static", True)
    assert streamed.counters.kv_bytes_moved == plain.counters.kv_bytes_moved
    before, after = (np.array([r.kv_ready_s - r.prefill_end_s for r in result.records]) for result in (plain, streamed))
    assert after.mean() < 0.7 * before.mean()
    before, after = (np.array([r.first_token_s - r.arrival_s for r in result.records]) for result in (plain, streamed))
    assert after.mean() < before.mean()
    assert [r.prefill_end_s for r in streamed.records] == pytest.approx([r.prefill_end_s for r in plain.records])


def test_streaming_hides_more_time_on_a_slower_link() -> None:
    saved_s = [
        np.mean([r.kv_ready_s for r in run("static", False, bandwidth).records])
        - np.mean([r.kv_ready_s for r in run("static", True, bandwidth).records])
        for bandwidth in (100e9, 20e9, 5e9)
    ]
    assert saved_s == sorted(saved_s)
    assert saved_s[0] > 0


@pytest.mark.parametrize("rule", policies.names())
def test_two_runs_are_equal_to_the_byte(rule: str) -> None:
    first, second = run(rule, True), run(rule, True)
    assert repr(first.records) == repr(second.records)
    assert first.counters == second.counters


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    capacity=st.sampled_from([6_300, 9_000, 400_000]),
    rule=st.sampled_from(policies.names()),
    bandwidth=bandwidths,
    limits=st.tuples(st.sampled_from([2, 256]), st.sampled_from([1, 256])),
    shape=st.sampled_from(["1P1D", "2P2D", "3P1D"]),
)
def test_no_request_starves_and_kv_is_within_capacity(
    seed: int, capacity: int, rule: str, bandwidth: float, limits: tuple[int, int], shape: str
) -> None:
    workload = without_hashes(conversations(seed, gap_s=0.02))
    max_seqs, max_prompts = limits
    config = ClusterConfig(
        profile(bandwidth, capacity),
        shape=shape,
        kv_streaming=True,
        max_seqs=max_seqs,
        max_prompts=max_prompts,
    )
    watched = Watched(config, rule)
    watched.play(rows(workload), 0, len(workload))
    records = watched.drain()
    assert_sound(workload, records)
    watched.assert_nothing_is_left()
    sent_tokens = [watched.split_tokens[r.request] or r.prompt_tokens for r in records if not r.deflected]
    moved = sum(-(-tokens // 16) * 16 * KV_BYTES for tokens in sent_tokens)
    assert watched.cluster.transfers.bytes_moved == moved
