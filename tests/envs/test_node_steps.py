"""Predicted times on a node that prefills next to its decodes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.chunk_plan import CHUNK_CANDIDATES
from envs.cluster import ClusterConfig, NodeReport, Placement, RequestView, RouterView, simulate
from envs.prediction import NodeSteps, best_remote, planned_queue_s, prefill_s, shared_queue_s
from envs.workload import Workload
from tests.policies.states import IDLE, HandMade, asks, behind, decoding
from tests.toy import TOY_LAW, toy_profile

FIXED = HandMade("1P1D").topology

residents = st.one_of(st.just(IDLE), st.builds(decoding, st.integers(1, 256), st.integers(1, 300_000)))


def steps_s(report: NodeReport, tokens: int, chunk: int, done: int) -> list[float]:
    """Each step of a prefill by the step law; the KV of the decodes is constant."""
    found = []
    while tokens:
        n = min(chunk, tokens)
        found.append(TOY_LAW.time_s([(n, done)], report.decode_batch, report.decode_kv_tokens))
        done += n
        tokens -= n
    return found


@given(report=residents, tokens=st.integers(1, 20_000), chunk=st.integers(1, 1700), done=st.integers(0, 20_000))
def test_a_prefill_takes_the_sum_of_its_steps(report: NodeReport, tokens: int, chunk: int, done: int) -> None:
    closed_s = NodeSteps(FIXED, 0, report).prefill_s(tokens, chunk, done)
    assert closed_s == pytest.approx(sum(steps_s(report, tokens, chunk, done)), rel=1e-9)


@given(tokens=st.integers(1, 20_000), chunk=st.integers(1, 2048))
def test_without_decodes_it_is_the_prefill_nodes_execution_time(tokens: int, chunk: int) -> None:
    assert NodeSteps(FIXED, 0, IDLE).prefill_s(tokens, chunk) == pytest.approx(
        prefill_s(TOY_LAW, tokens, chunk), rel=1e-12
    )


@given(report=residents, tokens=st.integers(1, 20_000), step_s=st.floats(0.01, 0.3))
def test_a_safe_chunk_is_the_largest_that_keeps_every_step(report: NodeReport, tokens: int, step_s: float) -> None:
    budget = 2048

    def longest_s(chunk: int) -> float:
        steps = steps_s(report, tokens, chunk, 0)
        # The decodes grow by one token per step; the toy law's slope over KV is constant for a batch.
        grown_s = TOY_LAW.decode_kv_s[report.decode_batch] * report.decode_batch if report.decode_batch else 0.0
        return max(step + i * grown_s for i, step in enumerate(steps))

    chunk = NodeSteps(FIXED, 0, report).safe_chunk(tokens, step_s)
    fitting = [size for size in CHUNK_CANDIDATES if min(size, tokens) + report.decode_batch <= budget]
    if chunk:
        assert chunk in [min(size, tokens) for size in fitting]
        assert longest_s(chunk) <= step_s + 1e-9
    larger = [min(size, tokens) for size in fitting if min(size, tokens) > chunk]
    assert all(longest_s(size) > step_s - 1e-9 for size in larger)


def test_waits_of_queues_with_and_without_shared_steps_are_right() -> None:
    view = HandMade("1P1D", behind(4096), behind(600))
    view.counters.queued_prompts[:] = [8, 3]
    view.counters.queued_prompt_tokens[:] = [4096, 600]
    node = NodeSteps(FIXED, 0, IDLE)
    # Two full steps, each with half of a 512-token prompt as context.
    assert shared_queue_s(view, 0, node, 4096) == pytest.approx(2 * node.step_s(2048, 256))
    # Three prompts of 200 tokens, each in a step of 128 and one of 72.
    assert planned_queue_s(view, 1, node, 600, 128) == pytest.approx(3 * (node.step_s(128, 0) + node.step_s(72, 128)))
    assert shared_queue_s(view, 0, node, 0) == planned_queue_s(view, 1, node, 0, 128) == 0.0
    assert planned_queue_s(HandMade("1P1D"), 1, node, 100, 128) == pytest.approx(node.step_s(100, 0))


class Fixed:
    """Places every request the same way and records its predictions."""

    name = "fixed"

    def __init__(self, local: bool) -> None:
        self.local = local
        self.ttft_s = 0.0

    def place(self, request: RequestView, view: RouterView) -> Placement:
        if self.local:
            self.ttft_s = NodeSteps(view.topology, 1, view.report(1)).prefill_s(request.prompt_tokens, 256)
            return Placement(1, 1, (256,))
        self.ttft_s = best_remote(request, view, 1).ttft_s
        return Placement(0, 1)


@settings(max_examples=30)
@given(prompt=st.integers(1, 20_000), local=st.booleans())
def test_on_an_idle_cluster_the_prediction_is_exact(prompt: int, local: bool) -> None:
    policy = Fixed(local)
    workload = Workload.of([0.0], [prompt], [4], label="one request")
    (record,) = simulate(workload, policy, ClusterConfig(toy_profile(), shape="1P1D", step_budget="fixed")).records
    assert record.first_token_s == pytest.approx(policy.ttft_s, rel=1e-9)


def test_the_best_prefill_node_has_the_shortest_queue() -> None:
    view = HandMade("3P1D", behind(5000), behind(3000), behind(4000), IDLE)
    assert best_remote(asks(1000), view, 3).node == 1
