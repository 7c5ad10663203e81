"""The cluster against formulas: zero load, M/D/1, Little's law, shared links."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig, Placement, RequestView, simulate
from envs.cluster.call import Call
from envs.cluster.clock import Clock
from envs.cluster.network import Network
from envs.cluster.request import Request
from envs.workload import Workload
from hardware_profiles import Link
from tests.toy import TOY_LAW, toy_profile


class To:
    name = "to"

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    def place(self, _request: RequestView, _view: object) -> Placement:
        return self.placement


@settings(max_examples=50)
@given(prompt=st.integers(1, 20_000), output=st.integers(1, 500))
def test_zero_load_ttft_is_execution_plus_transfer_plus_one_step(prompt: int, output: int) -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D")
    record = simulate(Workload.of([1.0], [prompt], [output], label="one"), To(Placement(0, 1)), config).records[0]
    chunks = [min(2048, prompt - done) for done in range(0, prompt, 2048)]
    execution_s = sum(TOY_LAW.time_s([(n, 2048 * i)], 0, 0) for i, n in enumerate(chunks))
    transfer_s = 1e-4 + -(-prompt // 16) * 16 * 100_000 / 20e9
    assert record.prefill_start_s == 1.0
    assert record.prefill_end_s - 1.0 == pytest.approx(execution_s)
    assert record.kv_ready_s - record.prefill_end_s == pytest.approx(transfer_s)
    assert record.first_token_s - record.kv_ready_s == pytest.approx(TOY_LAW.time_s((), 1, prompt))
    decode_s = sum(TOY_LAW.time_s((), 1, prompt + i) for i in range(1, output))
    assert record.last_token_s - record.first_token_s == pytest.approx(decode_s, abs=1e-9)
    assert record.tbt_max_s == pytest.approx(TOY_LAW.time_s((), 1, prompt + output - 1) if output > 1 else 0.0)


def test_zero_load_deflection_is_the_sum_of_its_chunks() -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", step_budget="fixed")
    workload = Workload.of([0.0], [1000], [3], label="one")
    record = simulate(workload, To(Placement(1, 1, (512, 256))), config).records[0]
    chunks = [(512, 0), (256, 512), (232, 768)]
    assert record.first_token_s == pytest.approx(sum(TOY_LAW.time_s([chunk], 0, 0) for chunk in chunks))


@settings(max_examples=50)
@given(prompt=st.integers(1, 30_000), budget=st.sampled_from([300, 2048, 8000]), tbt_slo_s=st.floats(1e-3, 1.0))
def test_zero_load_deflection_under_slo_uses_token_budget_chunks(prompt: int, budget: int, tbt_slo_s: float) -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", token_budget=budget)
    workload = Workload.of([0.0], [prompt], [3], label="one", tbt_slo_s=tbt_slo_s)
    record = simulate(workload, To(Placement(1, 1)), config).records[0]
    chunks = [(min(budget, prompt - done), done) for done in range(0, prompt, budget)]
    assert record.first_token_s == pytest.approx(sum(TOY_LAW.time_s([chunk], 0, 0) for chunk in chunks))
    assert record.first_token_s == record.kv_ready_s == record.prefill_end_s


@settings(max_examples=100)
@given(
    resident=st.integers(1, 2048),
    prompt=st.integers(1, 12_000),
    arrival_s=st.floats(0.2, 1.0),
    tbt_slo_s=st.floats(0.005, 0.2),
    share=st.sampled_from([0.5, 0.95, 1.0]),
    grain=st.sampled_from([1, 32, 100]),
)
def test_next_to_a_decode_chunks_are_the_largest_within_the_slo(
    resident: int, prompt: int, arrival_s: float, tbt_slo_s: float, share: float, grain: int
) -> None:
    config = ClusterConfig(
        toy_profile(), shape="1P1D", slo_share=share, chunk_grain_tokens=grain, max_seqs=8, step_budget="slo"
    )
    workload = Workload.of([0.0, arrival_s], [resident, prompt], [20_000, 2], label="two", tbt_slo_s=[tbt_slo_s, 1.0])
    result = simulate(workload, To(Placement(1, 1)), config)
    time_s = TOY_LAW.time_s([(resident, 0)], 0, 0)
    kv_tokens = resident
    while time_s < arrival_s:
        time_s += TOY_LAW.time_s((), 1, kv_tokens)
        kv_tokens += 1
    start_s = time_s
    done = steps = over = alone = least = 0
    while done < prompt:
        decode_s = TOY_LAW.decode_s(1, kv_tokens)
        most = min(prompt - done, config.token_budget - 1)
        limit_s = share * tbt_slo_s - TOY_LAW.chunk_const_s - decode_s
        chunk = TOY_LAW.largest_chunk(limit_s, 1, done, most, grain) or min(grain, most)
        step_s = TOY_LAW.time_s([(chunk, done)], 1, kv_tokens)
        steps += 1
        if step_s > tbt_slo_s:
            over += 1
            if TOY_LAW.time_s((), 1, kv_tokens) > tbt_slo_s:
                alone += 1
            else:
                least += 1
                assert chunk <= grain
        time_s += step_s
        done += chunk
        kv_tokens += 1
    second = result.records[1]
    assert second.prefill_start_s == pytest.approx(start_s, abs=1e-9)
    assert second.first_token_s == pytest.approx(time_s, abs=1e-9)
    counters = result.counters
    assert counters.chunk_steps == steps
    assert counters.chunk_steps_over_slo == over
    assert (counters.over_slo_decode_alone, counters.over_slo_minimum) == (alone, least)


@pytest.mark.slow
@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_prefill_of_equal_prompts_one_at_a_time_is_an_m_d_1_queue(utilisation: float) -> None:
    service_s = TOY_LAW.time_s([(500, 0)], 0, 0)
    rng = np.random.default_rng(11)
    requests = 60_000
    arrivals = np.cumsum(rng.exponential(service_s / utilisation, requests))
    workload = Workload.of(arrivals, [500] * requests, [1] * requests, label="M/D/1")
    records = simulate(workload, To(Placement(0, 1)), ClusterConfig(toy_profile(), shape="1P1D", max_prompts=1)).records
    waits_s = np.array([r.prefill_start_s - r.arrival_s for r in records])
    expected_s = utilisation * service_s / (2 * (1 - utilisation))
    # Batch means: waits are correlated, so the error of the mean is estimated from long stretches.
    batches = waits_s.reshape(30, -1).mean(axis=1)
    assert abs(waits_s.mean() - expected_s) < 4 * batches.std(ddof=1) / np.sqrt(30)


def test_littles_law_holds_for_the_prefill_queue() -> None:
    rng = np.random.default_rng(2)
    workload = Workload.of(
        np.cumsum(rng.exponential(0.06, 5_000)), rng.integers(100, 1500, 5_000), [5] * 5_000, label="steady"
    )
    records = simulate(workload, policies.make("static"), ClusterConfig(toy_profile())).records
    events = sorted([(r.arrival_s, 1) for r in records] + [(r.prefill_end_s, -1) for r in records])
    times = np.array([time for time, _ in events])
    in_system = np.cumsum([change for _, change in events])
    span_s = times[-1] - times[0]
    mean_in_system = float((in_system[:-1] * np.diff(times)).sum() / span_s)
    mean_stay_s = float(np.mean([r.prefill_end_s - r.arrival_s for r in records]))
    assert mean_in_system == pytest.approx(5_000 / span_s * mean_stay_s)


def test_saturated_prefill_runs_at_the_step_laws_throughput() -> None:
    requests = 2_000
    workload = Workload.of([0.0] * requests, [1024] * requests, [1] * requests, label="all at once")
    records = simulate(workload, To(Placement(0, 1)), ClusterConfig(toy_profile(), shape="1P1D")).records
    step_s = TOY_LAW.time_s([(1024, 0), (1024, 0)], 0, 0)  # two prompts fill the budget
    assert max(r.prefill_end_s for r in records) == pytest.approx(requests / 2 * step_s)


# ---- links ----------------------------------------------------------------------------------------------------------

GB = 10**9


def transfers(
    *jobs: tuple[float, int, int, float],
    hosts: tuple[int, ...] = (0, 1, 2, 3),
    nics: tuple[int, ...] = (0, 1, 2, 3),
    ahead_s: float = 0.0,
) -> list[float]:
    """End times of transfers (start_s, source, target, bytes) with NICs of 20 GB/s, NVLink of 200 GB/s, no latency."""
    clock = Clock()
    done: dict[int, float] = {}
    network = Network(
        clock.timeline,
        hosts,
        nics,
        Link(0.0, 20e9, "test"),
        Link(0.0, 200e9, "test"),
        lambda seq: done.__setitem__(seq.index, clock.now),
    )
    for i, (start_s, source, target, kv_bytes) in enumerate(jobs):
        told_s = start_s - ahead_s if start_s > ahead_s else start_s  # the network may know of it before it begins
        job = (Request(i, start_s, 1, 1, 1.0, 1.0), source, target, kv_bytes, start_s)
        clock.call_at(told_s, Call(lambda _, job=job: network.start(*job)))
    clock.run()
    return [done[i] for i in range(len(jobs))]


def test_a_lone_transfer_uses_the_whole_link() -> None:
    assert transfers((1.0, 0, 2, 20 * GB)) == pytest.approx([2.0])


def test_two_transfers_at_a_sender_get_half_each() -> None:
    assert transfers((0.0, 0, 2, 20 * GB), (0.0, 0, 3, 20 * GB)) == pytest.approx([2.0, 2.0])


def test_two_transfers_at_a_receiver_get_half_each() -> None:
    assert transfers((0.0, 0, 2, 20 * GB), (0.0, 1, 2, 20 * GB)) == pytest.approx([2.0, 2.0])


def test_transfers_without_a_common_end_are_independent() -> None:
    assert transfers((0.0, 0, 2, 20 * GB), (0.0, 1, 3, 20 * GB)) == pytest.approx([1.0, 1.0])


def test_shares_are_recomputed_when_a_transfer_starts_or_ends() -> None:
    # The first sends 10 GB alone by 0.5 s, then both send 10 GB each by 1.5 s, then the second sends 10 GB alone.
    assert transfers((0.0, 0, 2, 20 * GB), (0.5, 0, 3, 20 * GB)) == pytest.approx([1.5, 2.0])


def test_the_busier_end_limits_a_transfer() -> None:
    # The third shares its receiver with the second only, and the sender of the first two is shared by both.
    ends = transfers((0.0, 0, 2, 20 * GB), (0.0, 0, 3, 20 * GB), (0.0, 1, 3, 10 * GB))
    assert ends == pytest.approx([2.0, 2.0, 1.0])


def test_nvlink_within_a_host_is_independent_of_the_nics() -> None:
    ends = transfers((0.0, 0, 1, 20 * GB), (0.0, 0, 2, 20 * GB), hosts=(0, 0, 1, 1))
    assert ends == pytest.approx([0.1, 1.0])


def test_nodes_that_share_a_nic_share_its_ends() -> None:
    apart = transfers((0.0, 0, 2, 20 * GB), (0.0, 1, 3, 20 * GB))
    shared = transfers((0.0, 0, 2, 20 * GB), (0.0, 1, 3, 20 * GB), nics=(0, 0, 1, 2))
    assert apart == pytest.approx([1.0, 1.0])
    assert shared == pytest.approx([2.0, 2.0])


@settings(max_examples=60)
@given(
    jobs=st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from([0, 1]), st.sampled_from([2, 3]), st.floats(1e6, 30e9)),
        min_size=1,
        max_size=12,
    )
)
def test_a_link_is_never_overloaded_and_never_idle_with_work(
    jobs: list[tuple[float, int, int, float]],
) -> None:
    ends = transfers(*jobs)
    for (start_s, _, _, kv_bytes), end_s in zip(jobs, ends, strict=True):
        assert end_s - start_s >= kv_bytes / 20e9 * (1 - 1e-9)
    for node in range(4):
        mine = [(job, end) for job, end in zip(jobs, ends, strict=True) if node in job[1:3]]
        if mine:
            sent = sum(job[3] for job, _ in mine)
            assert max(end for _, end in mine) - min(job[0] for job, _ in mine) >= sent / 20e9 * (1 - 1e-9)
    # In the worst case all are sent one after the other.
    assert max(ends) <= max(job[0] for job in jobs) + sum(job[3] for job in jobs) / 20e9 * (1 + 1e-9)
