"""`taichi` on states with known answers, and against a second implementation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import NodeReport, Placement, RequestView
from hardware_profiles import InputError
from policies.taichi import TaiChi
from tests.policies.states import IDLE, HandMade, asks, behind, decoding, requests, views
from tests.toy import TOY_LAW


def lately(view: HandMade, mean_prompt_tokens: float, arrivals: float = 1e6) -> HandMade:
    """A view with many recent arrivals of this mean length."""
    view.counters.requests_slow = arrivals
    view.counters.tokens_slow = arrivals * mean_prompt_tokens
    return view


def test_a_short_prompt_goes_to_a_decode_node_despite_idle_prefill() -> None:
    assert TaiChi().place(asks(500), lately(HandMade("2P2D"), 1000)) == Placement(2, 2, (256,))


def test_longer_prompts_go_to_prefill_nodes() -> None:
    view = lately(HandMade("2P2D", behind(10), IDLE, IDLE, IDLE), 1000)
    assert TaiChi().place(asks(1000), view).prefill_node == 2
    assert TaiChi().place(asks(1001), view) == Placement(1, 2)
    assert TaiChi(short=2.0).place(asks(1001), view).prefill_node == 2


def test_the_first_request_determines_the_mean_length() -> None:
    assert TaiChi().place(asks(5000), HandMade("2P2D")).prefill_node == 2


def test_urgent_prompts_go_to_prefill_nodes() -> None:
    # 512 tokens in two chunks of 256: 2 * (8 ms + 12.8 ms + 1 ms) and 5 ns * (2 * 256^2 / 2 + 256^2).
    local_s = 0.0436 + 5e-9 * 2 * 256 * 256
    view = lately(HandMade("1P1D"), 10_000)
    assert TaiChi().place(asks(512, ttft_slo_s=local_s + 1e-6), view) == Placement(1, 1, (256,))
    assert TaiChi().place(asks(512, ttft_slo_s=local_s - 1e-6), view) == Placement(0, 1)
    assert TaiChi(share=0.5).place(asks(512, ttft_slo_s=local_s + 1e-6), view) == Placement(0, 1)
    assert TaiChi(share=0.5).place(asks(512, ttft_slo_s=2 * local_s + 1e-6), view) == Placement(1, 1, (256,))


def test_a_long_prompt_goes_where_it_meets_its_slo() -> None:
    view = lately(HandMade("2P2D", behind(60_000), behind(60_000), behind(2000), IDLE), 100)
    assert TaiChi().place(asks(3000), view) == Placement(3, 3, (256,))


def test_if_all_miss_the_prefill_node_with_the_shorter_queue_wins() -> None:
    far_behind = behind(200_000)
    view = lately(HandMade("2P2D", far_behind, behind(100_000), far_behind, far_behind), 100)
    assert TaiChi().place(asks(50), view) == Placement(1, 2)


def test_the_decode_node_with_the_shorter_prediction_wins() -> None:
    view = lately(HandMade("1P2D", IDLE, behind(900), IDLE), 1000)
    assert TaiChi().place(asks(100), view).prefill_node == 2
    view.reports[2] = behind(2000)
    assert TaiChi().place(asks(100), view).prefill_node == 1


def test_a_decode_node_above_the_watermark_prefills_nothing() -> None:
    # The toy's nodes have room for 400,000 tokens.
    full = NodeReport(8, 199_501, 0, 199_501, 0.1)
    view = lately(HandMade("1P1D", IDLE, full), 1000)
    assert TaiChi().place(asks(500), view) == Placement(0, 1)
    assert TaiChi().place(asks(499), view) == Placement(1, 1, (256,))
    assert TaiChi(watermark=0.8).place(asks(500), view) == Placement(1, 1, (256,))


def test_decodes_slow_a_local_prefill_without_limiting_its_steps() -> None:
    residents = decoding(64, 64_000, tbt_slo_s=0.012)
    view = lately(HandMade("1P1D", IDLE, residents), 1000)
    step_s = TOY_LAW.time_s([(256, 0)], 64, 64_000)
    wait_s = 0.5 * TOY_LAW.time_s([], 64, 64_000)
    assert step_s > 0.012
    assert TaiChi().place(asks(256, ttft_slo_s=step_s + wait_s + 1e-6), view) == Placement(1, 1, (256,))
    assert TaiChi().place(asks(256, ttft_slo_s=step_s + wait_s - 1e-6), view) == Placement(0, 1)


# ---- the rule written out anew --------------------------------------------------------------------------------------


def locally_s(view: HandMade, node: int, prompt: int, chunk: int) -> float:
    """Predicted TTFT on a decode node, step by step."""
    report = view.reports[node]
    batch, kv_tokens = report.decode_batch, report.decode_kv_tokens

    def prefill_s(tokens: int, cached: int = 0) -> float:
        done, total_s = cached, 0.0
        while done < tokens:
            n = min(chunk, tokens - done)
            total_s += TOY_LAW.time_s([(n, done)], batch, kv_tokens)
            done += n
        return total_s

    queue_s = 0.0
    ahead = report.prefill_tokens_ahead
    if ahead > 0:
        queued = view.counters.queued_prompts[node]
        mean = view.counters.queued_prompt_tokens[node] // queued if queued else 0
        mean = mean or ahead
        queue_s = ahead / mean * prefill_s(mean)
    boundary_s = 0.5 * TOY_LAW.time_s([], batch, kv_tokens) if batch else 0.0
    return queue_s + boundary_s + prefill_s(prompt, min(view.hits[node], prompt - 1))


@settings(max_examples=150)
@given(
    view=views(),
    request=requests,
    chunk=st.sampled_from([128, 256, 512]),
    short=st.sampled_from([0.5, 1.0, float("inf")]),
    share=st.sampled_from([0.5, 1.0]),
    mean_tokens=st.floats(1.0, 10_000.0),
)
def test_taichi_equals_a_second_implementation(
    view: HandMade, request: RequestView, chunk: int, short: float, share: float, mean_tokens: float
) -> None:
    lately(view, mean_tokens, arrivals=5.0)
    placed = TaiChi(chunk, short, share).place(request, view)
    prompt = request.prompt_tokens
    free = [
        node
        for node in view.topology.decode_nodes
        if view.reports[node].kv_used_tokens + prompt <= 0.5 * view.topology.kv_capacity_tokens[node]
    ]
    local_s = {node: locally_s(view, node, prompt, chunk) for node in free}
    limit_s = share * request.ttft_slo_s
    if placed.prefill_node == placed.decode_node:
        assert local_s[placed.decode_node] == pytest.approx(min(local_s.values()))
        assert local_s[placed.decode_node] <= limit_s * (1 + 1e-9)
        assert placed.chunk_plan == (chunk,)
    else:
        assert placed.prefill_node in view.topology.prefill_nodes
        assert placed.decode_node == view.least_loaded_decode_node()
        assert placed.chunk_plan == ()
        least_s = min(local_s.values(), default=float("inf"))
        best = [node for node in free if local_s[node] <= least_s * (1 + 1e-9)]
        to_compute = max([prompt - min(view.hits[node], prompt - 1) for node in best], default=prompt)
        is_short = to_compute <= short * (5.0 * mean_tokens + prompt) / 6.0
        assert not is_short or least_s >= limit_s * (1 - 1e-9)


@pytest.mark.parametrize(
    "knobs", ["chunk=0", "short=0", "short=nan", "share=0", "share=inf", "watermark=0", "watermark=1.1"]
)
def test_a_knob_out_of_range_is_an_input_error(knobs: str) -> None:
    with pytest.raises(InputError, match=f"taichi: {knobs.partition('=')[0]} must"):
        policies.make(f"taichi:{knobs}")
