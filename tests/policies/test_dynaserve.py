"""`dynaserve` on states with known answers, and against a second implementation."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import NodeReport, Placement, RequestView
from hardware_profiles import InputError
from policies.dynaserve import DynaServe
from tests.policies.states import IDLE, HandMade, asks, behind, decoding, requests, views
from tests.toy import TOY_LAW


def queued(view: HandMade, node: int, prompt_tokens: int) -> HandMade:
    """One prompt ahead on a node, which the router has sent."""
    view.reports[node] = behind(prompt_tokens)
    view.counters.queued_prompts[node] = 1
    view.counters.queued_prompt_tokens[node] = prompt_tokens
    return view


def test_on_an_idle_cluster_no_kv_is_sent() -> None:
    assert DynaServe().place(asks(1000, tbt_slo_s=0.5), HandMade("2P2D")) == Placement(2, 2, (1000,))


def test_a_decode_node_without_a_safe_chunk_gets_no_prompt() -> None:
    busy = decoding(20, 10_000, tbt_slo_s=0.012)
    assert DynaServe().place(asks(1000), HandMade("1P1D", IDLE, busy)) == Placement(0, 1)


def test_a_long_queue_on_the_decode_node_means_a_remote_prefill() -> None:
    view = queued(HandMade("1P1D"), 1, 60_000)
    assert DynaServe().place(asks(4096, tbt_slo_s=0.5), view) == Placement(0, 1)


def test_a_split_overlaps_the_first_segment_with_the_queue() -> None:
    # The queue of 1,000 tokens takes 61.5 ms, the first half of the prompt 122 ms and 10 ms to send. A split prompt
    # does not wait for the queue and sends half; a local one waits for it; a remote one sends all and takes a decode
    # step.
    view = queued(HandMade("1P1D"), 1, 1000)
    request = asks(4096, tbt_slo_s=0.5)
    assert DynaServe(splits=1).place(request, view) == Placement(0, 1, (2048,), 2048)
    assert DynaServe(splits=0).place(request, view) == Placement(0, 1)


def test_a_split_uses_the_decode_node_that_is_free_first() -> None:
    view = queued(queued(HandMade("1P2D"), 1, 8000), 2, 1000)
    assert DynaServe(splits=1).place(asks(4096, tbt_slo_s=0.5), view) == Placement(0, 2, (2048,), 2048)


def test_the_first_segment_has_whole_blocks() -> None:
    view = queued(HandMade("1P1D"), 1, 1000)
    assert (
        DynaServe(splits=1).place(asks(4100, tbt_slo_s=0.5), view).split_tokens == 2048
    )  # 2050 tokens are not whole blocks


# ---- the rule written out anew --------------------------------------------------------------------------------------


def exec_s(report: NodeReport, tokens: int, done: int, chunk: int) -> float:
    """Seconds to prefill `tokens` tokens after `done` others next to decodes, step by step."""
    total_s = 0.0
    while tokens:
        n = min(chunk, tokens)
        total_s += TOY_LAW.time_s([(n, done)], report.decode_batch, report.decode_kv_tokens)
        done += n
        tokens -= n
    return total_s


def send_s(tokens: int) -> float:
    return 1e-4 + (tokens + 15) // 16 * 16 * 100_000 / 20e9


def queue_s(view: HandMade, node: int, chunk: int, *, shared: bool) -> float:
    report = view.reports[node]
    ahead = report.prefill_tokens_ahead
    if ahead <= 0:
        return 0.0
    prompts = view.counters.queued_prompts[node]
    mean = view.counters.queued_prompt_tokens[node] // prompts if prompts else 0
    if shared:
        step_s = exec_s(report, chunk, 0, chunk) + chunk * 5e-9 * mean / 2
        return ahead / chunk * step_s
    mean = mean or ahead
    return ahead / mean * exec_s(report, mean, 0, chunk)


def written_out(view: HandMade, request: RequestView, splits: int, beta: float) -> dict[Placement, float]:
    """Predicted TTFT of every candidate."""
    prompt = request.prompt_tokens
    counters = view.counters
    least = min(view.topology.decode_nodes, key=lambda node: (counters.decode_requests[node], node))
    to_compute: dict[int, tuple[float, int]] = {}
    for node in view.topology.prefill_nodes:
        chunk = 2048 - view.reports[node].decode_batch
        to_compute[node] = queue_s(view, node, chunk, shared=True), chunk
    p = min(
        to_compute, key=lambda node: to_compute[node][0] + exec_s(view.reports[node], prompt, 0, to_compute[node][1])
    )
    wait_s, chunk_p = to_compute[p]
    found = {}
    report = view.reports[least]
    step_s = TOY_LAW.time_s([], report.decode_batch, report.decode_kv_tokens) if report.decode_batch else 0.0
    joined_s = TOY_LAW.time_s([], report.decode_batch + 1, report.decode_kv_tokens + prompt)
    found[Placement(p, least)] = (
        wait_s + exec_s(view.reports[p], prompt, 0, chunk_p) + send_s(prompt) + 0.5 * step_s + joined_s
    )
    cuts = {prompt * number // (splits + 1) // 16 * 16 for number in range(splits + 1)}
    for d in view.topology.decode_nodes:
        report = view.reports[d]
        slo_s = report.tbt_slo_s if report.decode_batch else request.tbt_slo_s
        for chunk in (min(size, prompt) for size in (2048, 1024, 512, 256, 128)):
            done, kv_tokens, fits = 0, report.decode_kv_tokens, chunk + report.decode_batch <= 2048
            while fits and done < prompt:
                n = min(chunk, prompt - done)
                fits = TOY_LAW.time_s([(n, done)], report.decode_batch, kv_tokens) <= beta * slo_s
                done += n
                kv_tokens += report.decode_batch
            if fits:
                break
        else:
            continue
        free_s = queue_s(view, d, chunk, shared=False)
        step_s = TOY_LAW.time_s([], report.decode_batch, report.decode_kv_tokens) if report.decode_batch else 0.0
        for cut in cuts:
            ready_s = wait_s + exec_s(view.reports[p], cut, 0, chunk_p) + send_s(cut) if cut else 0.0
            placed = Placement(p if cut else d, d, (chunk,), cut)
            found[placed] = max(ready_s, free_s) + 0.5 * step_s + exec_s(report, prompt - cut, cut, chunk)
    return found


@settings(max_examples=200)
@given(view=views(), request=requests, splits=st.integers(0, 5), beta=st.sampled_from([0.5, 0.9, 1.0]))
def test_dynaserve_uses_the_candidate_with_the_least_ttft(
    view: HandMade, request: RequestView, splits: int, beta: float
) -> None:
    placed = DynaServe(splits, beta).place(request, view)
    found = written_out(view, request, splits, beta)
    assert found.get(placed, inf) <= min(found.values()) * (1 + 1e-9)
    assert 0 <= placed.split_tokens < request.prompt_tokens
    assert not placed.split_tokens or placed.prefill_node in view.topology.prefill_nodes


@pytest.mark.parametrize("knobs", ["splits=-1", "beta=0", "beta=1.01", "beta=nan"])
def test_a_knob_out_of_range_is_an_input_error(knobs: str) -> None:
    with pytest.raises(InputError, match=f"dynaserve: {knobs.partition('=')[0]} must"):
        policies.make(f"dynaserve:{knobs}")
