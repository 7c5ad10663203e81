"""Algorithm 1 of arXiv 2607.02043 on states set by hand, and against a second implementation."""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.cluster import NodeReport, Placement, RequestView
from policies.kairos import Kairos
from tests.policies.states import IDLE, HandMade, asks, behind, decoding
from tests.toy import TOY_LAW

# Seconds of a step of the toy machine with one chunk alone, and with 20 decodes of 500 tokens, computed by hand: 8 ms
# + 50 us per token + 1 ms per chunk + 2.5 ns per squared token, and 0.5 ms + 50 us per decode + 80 ns per KV token.
ALONE_1000_S = 0.008 + 0.05 + 0.001 + 0.0025
BESIDE_20_S = 0.0005 + 0.001 + 0.0008 + 0.001


def test_the_toy_steps_equal_the_hand_computation() -> None:
    assert TOY_LAW.time_s([(1000, 0)], 0, 0) == pytest.approx(ALONE_1000_S)
    assert TOY_LAW.time_s([(1000, 0)], 20, 10_000) == pytest.approx(ALONE_1000_S + BESIDE_20_S)


# ---- one decision each ----------------------------------------------------------------------------------------------


def test_an_idle_cluster_deflects_to_save_the_transfer() -> None:
    view = HandMade("1P1D")
    assert Kairos(alpha=1.0).place(asks(1000), view) == Placement(1, 1, (1000,))


def test_a_free_prefill_node_is_preferred_to_a_busy_one() -> None:
    full = decoding(20, 10_000, tbt_slo_s=0.012)  # no chunk fits, so only the prefill path is possible
    assert Kairos().place(asks(1000), HandMade("2P1D", behind(3000), IDLE, full)) == Placement(1, 2)
    assert Kairos().place(asks(1000), HandMade("2P1D", IDLE, behind(3000), full)) == Placement(0, 2)


def test_the_shorter_of_two_queues_is_used() -> None:
    full = decoding(20, 10_000, tbt_slo_s=0.012)
    assert Kairos().place(asks(1000), HandMade("2P1D", behind(3000), behind(2999), full)) == Placement(1, 2)


def test_busy_prefill_nodes_deflect_even_to_slower_decode_nodes() -> None:
    # Next to 25 decodes with steps of 20.5 ms only chunks of 128 tokens fit: twice as slow as a free prefill node.
    decode = decoding(25, 10_000, tbt_slo_s=0.0205)
    assert Kairos().place(asks(1000), HandMade("1P1D", IDLE, decode)) == Placement(0, 1)
    deflected = Kairos().place(asks(1000), HandMade("1P1D", behind(8000), decode))
    assert deflected == Placement(1, 1, (128,) * 7 + (104,))


def test_the_cap_is_one_deflected_prompt_per_node() -> None:
    view = HandMade("1P2D", behind(8000), IDLE, IDLE)
    view.counters.deflected_requests[1] = 1
    assert Kairos().place(asks(1000), view) == Placement(2, 2, (1000,))
    view.counters.deflected_requests[2] = 1
    assert Kairos().place(asks(1000), view) == Placement(0, 1)
    assert Kairos(cap=2).place(asks(1000), view).prefill_node in (1, 2)


def test_a_deflected_prompt_counts_before_a_report_shows_it() -> None:
    view = HandMade("1P1D", behind(8000), IDLE)
    assert Kairos().place(asks(1000), view) == Placement(1, 1, (1000,))
    view.counters.deflected_requests[1] = 1  # the report still shows an idle node
    assert Kairos().place(asks(1000), view) == Placement(0, 1)


def test_without_a_safe_chunk_nothing_is_deflected() -> None:
    smallest_s = TOY_LAW.time_s([(128, 0)], 20, 10_000)
    view = HandMade("1P1D", behind(50_000), decoding(20, 10_000, tbt_slo_s=smallest_s * 0.999))
    assert Kairos().place(asks(128), view) == Placement(0, 1)
    view.reports[1] = decoding(20, 10_000, tbt_slo_s=smallest_s * 1.001)
    assert Kairos().place(asks(128), view) == Placement(1, 1, (128,))
    assert Kairos(beta=0.99).place(asks(128), view) == Placement(0, 1)


def test_a_fixed_chunk_replaces_the_greedy_schedule() -> None:
    view = HandMade("1P1D", behind(8000), decoding(20, 10_000, tbt_slo_s=0.1))
    assert Kairos().place(asks(1000), view) == Placement(1, 1, (1000,))
    assert Kairos(chunk=300).place(asks(1000), view) == Placement(1, 1, (300, 300, 300, 100))
    # 2048 tokens next to a decode exceed the engine's budget and 100 ms.
    assert Kairos(chunk=2048).place(asks(5000), view) == Placement(0, 1)


def test_a_plan_that_breaks_the_tbt_slo_later_is_infeasible() -> None:
    # The growing context slows the steps: the first chunk of 128 tokens fits, the fortieth does not.
    first_s, later_s = TOY_LAW.time_s([(128, 0)], 20, 10_000), TOY_LAW.time_s([(128, 5000)], 20, 10_800)
    view = HandMade("1P1D", behind(50_000), decoding(20, 10_000, tbt_slo_s=(first_s + later_s) / 2))
    assert Kairos(alpha=100.0).place(asks(6000, ttft_slo_s=60.0), view) == Placement(0, 1)
    assert Kairos(alpha=100.0).place(asks(128, ttft_slo_s=60.0), view).prefill_node == 1


def test_the_requests_ttft_slo_limits_a_deflection() -> None:
    view = HandMade("1P1D", behind(50_000), IDLE)
    assert Kairos().place(asks(1000, ttft_slo_s=ALONE_1000_S * 1.001), view) == Placement(1, 1, (1000,))
    assert Kairos().place(asks(1000, ttft_slo_s=ALONE_1000_S * 0.999), view) == Placement(0, 1)


def test_alpha_limits_a_deflection() -> None:
    ratio = (ALONE_1000_S + BESIDE_20_S) / ALONE_1000_S  # 1.05
    view = HandMade("1P1D", IDLE, decoding(20, 10_000))
    assert Kairos(alpha=ratio * 1.001, transfer=False).place(asks(1000), view) == Placement(1, 1, (1000,))
    assert Kairos(alpha=ratio * 0.999, transfer=False).place(asks(1000), view) == Placement(0, 1)


def test_an_empty_node_must_keep_the_requests_own_tbt_slo() -> None:
    view = HandMade("1P1D", behind(50_000), IDLE)
    assert Kairos().place(asks(1000, tbt_slo_s=0.1), view).chunk_plan == (1000,)
    assert Kairos().place(asks(1000, tbt_slo_s=0.04), view).chunk_plan == (512, 488)
    assert Kairos().place(asks(1000, tbt_slo_s=0.01), view) == Placement(0, 1)


def test_the_tbt_budget_protects_decodes_and_not_the_request() -> None:
    view = HandMade("1P1D", behind(50_000), decoding(1, 100, tbt_slo_s=0.1))
    assert Kairos().place(asks(1000, tbt_slo_s=0.01), view).chunk_plan == (1000,)
    view = HandMade("1P1D", behind(50_000), decoding(1, 100, tbt_slo_s=0.04))
    assert Kairos().place(asks(1000, tbt_slo_s=10.0), view).chunk_plan == (512, 488)


def test_the_transfer_term_changes_a_decision() -> None:
    # Four chunks instead of two: 18 ms more than the prefill path without the transfer, 2 ms less than with it.
    view = HandMade("1P1D")
    assert Kairos(alpha=1.0).place(asks(4000), view) == Placement(1, 1, (1024, 1024, 1024, 928))
    assert Kairos(alpha=1.0, transfer=False).place(asks(4000), view) == Placement(0, 1)


def test_the_transfer_term_accounts_for_nvlink() -> None:
    view = HandMade("1P1D", hosts=(0, 0))
    assert Kairos(alpha=1.0).place(asks(4000), view) == Placement(0, 1)


def test_the_queue_wait_uses_chunks_of_the_prompt_or_the_budget() -> None:
    # 1000 tokens ahead of a prompt of 600: 1.7 steps of 600 tokens (69 ms), or half a step of 2048 (62 ms). With its
    # execution of 43 ms, the prefill path takes 112 or 105 ms; the decode node 108 ms.
    view = HandMade("1P1D", behind(1000), decoding(20, 815_000, tbt_slo_s=0.2))
    assert Kairos(alpha=1.0, queue_chunk="prompt").place(asks(600), view) == Placement(1, 1, (600,))
    assert Kairos(alpha=1.0, queue_chunk="budget").place(asks(600), view) == Placement(0, 1)


def test_the_decode_node_of_the_prefill_path_is_the_least_loaded() -> None:
    view = HandMade("1P2D", IDLE, decoding(20, 10_000, 0.012), decoding(20, 10_000, 0.012))
    view.counters.decode_requests[1:] = [21, 20]
    assert Kairos().place(asks(1000), view) == Placement(0, 2)


# ---- the rule written out anew --------------------------------------------------------------------------------------


@dataclass
class Paths:
    """TTFT of every node by the prefill path, and TTFT and chunks by the decode path, from the rule's description."""

    prefill_s: dict[int, float] = field(default_factory=dict)
    decode_s: dict[int, float] = field(default_factory=dict)
    chunks: dict[int, tuple[int, ...]] = field(default_factory=dict)


def written_out(request: RequestView, view: HandMade, beta: float, cap: int, transfer: bool, queue_chunk: str) -> Paths:
    paths = Paths()
    prompt = request.prompt_tokens
    time_s = TOY_LAW.time_s
    decode_nodes = view.topology.decode_nodes
    target = min(decode_nodes, key=lambda node: (view.counters.decode_requests[node], node))
    for node in view.topology.prefill_nodes:
        ahead = view.reports[node].prefill_tokens_ahead
        chi = min(2048, prompt) if queue_chunk == "prompt" else 2048
        ttft_s = ahead / chi * (TOY_LAW.token_time_s[chi] + 0.001 + 5e-9 * chi * (ahead / 2) + 5e-9 * chi * chi / 2)
        done = min(view.hits[node], prompt - 1)
        while done < prompt:
            chunk = min(2048, prompt - done)
            ttft_s += time_s([(chunk, done)], 0, 0)
            done += chunk
        if transfer:
            same_host = view.topology.hosts[node] == view.topology.hosts[target]
            blocks = (prompt + 15) // 16 - min(view.hits[target], prompt - 1) // 16
            kv_bytes = blocks * 16 * 100_000
            ttft_s += 3e-5 + kv_bytes / 250e9 if same_host else 1e-4 + kv_bytes / 20e9
        paths.prefill_s[node] = ttft_s
    for node in decode_nodes:
        if view.counters.deflected_requests[node] >= cap:
            continue
        report = view.reports[node]
        tau = request.tbt_slo_s if report.decode_batch == 0 else report.tbt_slo_s
        chunks: list[int] = []
        total_s = 0.0
        cached = min(view.hits[node], prompt - 1)
        while total_s < inf and cached + sum(chunks) < prompt:
            done = cached + sum(chunks)
            kv_tokens = report.decode_kv_tokens + len(chunks) * report.decode_batch
            for candidate in (2048, 1024, 512, 256, 128):
                chunk = min(candidate, prompt - done)
                if chunk + report.decode_batch > 2048:
                    continue
                step_s = time_s([(chunk, done)], report.decode_batch, kv_tokens)
                if step_s <= beta * tau:
                    chunks.append(chunk)
                    total_s += step_s
                    break
            else:
                total_s = inf
        if total_s < inf:
            paths.decode_s[node] = total_s
            paths.chunks[node] = tuple(chunks)
    return paths


reports = st.one_of(
    st.just(IDLE),
    st.builds(
        NodeReport,
        decode_batch=st.integers(1, 256),
        decode_kv_tokens=st.integers(1, 200_000),
        prefill_tokens_ahead=st.integers(0, 30_000),
        kv_used_tokens=st.just(0),
        tbt_slo_s=st.floats(0.012, 0.2),
    ),
    st.builds(behind, st.integers(0, 30_000)),
)


@settings(max_examples=250)
@given(data=st.data())
def test_kairos_equals_a_second_implementation(data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.sampled_from(["1P1D", "2P2D", "3P1D", "1P3D"]))
    nodes = int(shape[0]) + int(shape[2])
    hosts = draw(st.sampled_from([None, (0,) * nodes]))
    view = HandMade(shape, *[draw(reports) for _ in range(nodes)], hosts=hosts)
    view.counters.deflected_requests[:] = draw(st.lists(st.integers(0, 2), min_size=nodes, max_size=nodes))
    view.counters.decode_requests[:] = draw(st.lists(st.integers(0, 5), min_size=nodes, max_size=nodes))
    view.hits = draw(st.sampled_from([[0] * nodes, [512 * draw(st.integers(0, 8)) for _ in range(nodes)]]))
    request = asks(draw(st.integers(1, 20_000)), draw(st.floats(0.05, 5.0)), draw(st.floats(0.012, 0.2)))
    alpha, beta = draw(st.floats(1.0, 3.0)), draw(st.sampled_from([1.0, 0.9, 0.5]))
    cap, transfer = draw(st.integers(1, 2)), draw(st.booleans())
    queue_chunk = draw(st.sampled_from(["prompt", "budget"]))

    placed = Kairos(alpha, beta, cap, transfer, queue_chunk).place(request, view)
    paths = written_out(request, view, beta, cap, transfer, queue_chunk)
    rounding = 1e-9
    best_prefill_s = min(paths.prefill_s.values())
    limit_s = min(alpha * best_prefill_s, request.ttft_slo_s)
    if placed.prefill_node in view.topology.decode_nodes:
        node = placed.prefill_node
        assert placed.decode_node == node
        computed = paths.chunks[node]
        assert placed.chunk_plan[-len(computed) :] == computed
        assert sum(placed.chunk_plan) == request.prompt_tokens
        assert paths.decode_s[node] <= min(min(paths.decode_s.values()), limit_s) + rounding
    else:
        assert paths.prefill_s[placed.prefill_node] <= best_prefill_s + rounding
        assert placed.chunk_plan == ()
        assert placed.decode_node == view.least_loaded_decode_node()
        assert all(ttft_s >= limit_s - rounding for ttft_s in paths.decode_s.values())
