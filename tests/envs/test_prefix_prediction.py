"""Predictions for partly cached prompts: they start after the hit, and agree with the engine."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.choices import Choices
from envs.chunk_plan import CHUNK_CANDIDATES, plan_chunks
from envs.cluster import ClusterConfig, NodeReport, Placement, RequestView, RouterView, simulate
from envs.cluster.config import StepBudget
from envs.prediction import NodeSteps, best_remote, local_prefill, tokens_to_send
from envs.workload import HASH_BLOCK_TOKENS, Workload
from tests.envs.shared_prefixes import blocks_of
from tests.policies.states import IDLE, HandMade, asks, changed, decoding, row_of
from tests.toy import TOY_LAW, toy_profile

budgets = st.sampled_from(["fixed", "slo"])
residents = st.one_of(st.just(IDLE), st.builds(decoding, st.integers(1, 128), st.integers(1, 100_000)))


# ---- plans ----------------------------------------------------------------------------------------------------------


@given(
    tokens=st.integers(1, 12_000),
    done=st.integers(1, 12_000),
    batch=st.integers(0, 128),
    budget_s=st.floats(0.011, 0.25),
)
def test_a_plan_after_cached_tokens_is_greedy_from_there(tokens: int, done: int, batch: int, budget_s: float) -> None:
    kv_tokens = 300 * batch
    plan = plan_chunks(TOY_LAW, tokens, batch, kv_tokens, budget_s, 2048, smallest_if_none=True, done_tokens=done)
    assert plan is not None
    assert sum(plan.chunks) == done + tokens
    cached, computed = plan.chunks[: -plan.steps], plan.chunks[-plan.steps :]
    assert sum(cached) == done
    assert max(cached) <= max(computed[0], CHUNK_CANDIDATES[-1])
    times_s = []
    context = done
    for chunk in computed:
        decode_kv_tokens = kv_tokens + batch * len(times_s)
        times_s.append(TOY_LAW.time_s([(chunk, context)], batch, decode_kv_tokens))
        larger = [min(size, done + tokens - context) for size in CHUNK_CANDIDATES]
        for size in (size for size in larger if chunk < size <= 2048 - batch):
            assert TOY_LAW.time_s([(size, context)], batch, decode_kv_tokens) > budget_s - 1e-9
        context += chunk
    assert plan.total_s == pytest.approx(sum(times_s), rel=1e-9)
    assert plan.longest_s == pytest.approx(max(times_s), rel=1e-9)


@given(report=residents, tokens=st.integers(1, 12_000), done=st.integers(0, 12_000), step_s=st.floats(0.01, 0.3))
def test_a_safe_chunk_after_cached_tokens_keeps_every_step(
    report: NodeReport, tokens: int, done: int, step_s: float
) -> None:
    steps = NodeSteps(HandMade("1P1D").topology, 1, report)
    chunk = steps.safe_chunk(tokens, step_s, done_tokens=done)
    assert chunk <= steps.safe_chunk(tokens, step_s)
    if chunk:
        for number, context in enumerate(range(done, done + tokens, chunk)):
            n = min(chunk, done + tokens - context)
            assert steps.step_s(n, context) + number * steps.growth_s <= step_s + 1e-9


@given(report=residents, prompt=st.integers(2, 12_000), share=st.floats(0, 1), budget=budgets)
def test_cached_tokens_are_not_computed(report: NodeReport, prompt: int, share: float, budget: StepBudget) -> None:
    topology = HandMade("1P1D", step_budget=budget).topology
    done = int(share * (prompt - 1))
    whole, rest = (
        local_prefill(topology, 1, report, prompt, 0.1, smallest_if_none=True, done_tokens=tokens)
        for tokens in (0, done)
    )
    assert whole is not None
    assert rest is not None
    assert sum(rest.chunks) in (prompt, 0)
    if not report.decode_batch or budget == "fixed":
        assert rest.total_s <= whole.total_s * (1 + 1e-9)


# ---- on an idle cluster ---------------------------------------------------------------------------------------------


class Warmed:
    """Puts the first prompt on both nodes, then places the last one on `node` and records its predictions."""

    name = "warmed"

    def __init__(self, node: int) -> None:
        self.node = node
        self.predicted_s: list[float] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        if request.number == 0:
            return Placement(0, 1)
        choices = Choices.of(request, view, "deflection")
        row = row_of(choices, self.node, 1)
        self.predicted_s = [choices.ttft_s[row]]
        if self.node == 0:
            self.predicted_s.append(best_remote(request, view, 1).ttft_s)
        return choices.placement(row)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.integers(1, 20_000),
    shared=st.integers(0, 40),
    node=st.integers(0, 1),
    budget=budgets,
    cached=st.booleans(),
)
def test_on_an_idle_cluster_with_a_warm_cache_predictions_are_exact(
    prompt: int, shared: int, node: int, budget: StepBudget, cached: bool
) -> None:
    blocks = blocks_of(prompt)
    other = tuple(i if i < shared else 1000 + i for i in range(blocks))
    workload = Workload.of(
        [0.0, 100.0], [prompt] * 2, [3] * 2, label="twice", block_hashes=(tuple(range(blocks)), other)
    )
    policy = Warmed(node)
    config = ClusterConfig(toy_profile(), shape="1P1D", prefix_cache=cached, step_budget=budget)
    result = simulate(workload, policy, config)
    assert result.counters.prefix_hit_tokens == (min(shared * HASH_BLOCK_TOKENS, prompt - 1) if cached else 0)
    ttft_s = result.records[1].first_token_s - 100.0
    assert policy.predicted_s == pytest.approx([ttft_s] * len(policy.predicted_s), rel=1e-9)


# ---- what is sent, and where ----------------------------------------------------------------------------------------


@given(prompt=st.integers(1, 20_000), hit=st.integers(0, 20_000))
def test_a_transfer_skips_whole_blocks_on_the_decode_node(prompt: int, hit: int) -> None:
    view = HandMade("1P1D")
    view.hits[1] = hit
    blocks = -(-prompt // 16) - min(hit, prompt - 1) // 16
    sent_bytes = view.topology.kv_bytes(tokens_to_send(asks(prompt), view, 1))
    assert sent_bytes == 16 * blocks * view.topology.kv_bytes_per_token > 0


def test_the_best_prefill_node_may_be_the_one_with_the_prompt() -> None:
    view = HandMade("2P1D", IDLE, changed(IDLE, prefill_tokens_ahead=1000), IDLE)
    view.counters.queued_prompts[1] = 1
    view.counters.queued_prompt_tokens[1] = 1000
    request = asks(4000)
    assert best_remote(request, view, 2).node == 0
    unaware_s = best_remote(request, view, 2).ttft_s
    view.hits[1] = 3584
    assert best_remote(request, view, 2).node == 1
    assert best_remote(request, view, 2).ttft_s < unaware_s
    unaware = best_remote(request, view, 2, prefix=False)
    nothing_cached = best_remote(request, HandMade("2P1D", *view.reports), 2)
    assert (unaware.node, unaware.ttft_s) == (nothing_cached.node, nothing_cached.ttft_s)
    assert unaware.ttft_s < inf


# ---- queues ---------------------------------------------------------------------------------------------------------


class Queued:
    """Sends every request to one node and records the report and the router's counts before it."""

    name = "queued"

    def __init__(self, node: int) -> None:
        self.node = node
        self.ahead: list[tuple[int, int]] = []
        self.predicted_s: list[float] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        if request.number == 0:
            return Placement(0, 1)
        report = view.report(self.node)
        self.ahead.append((report.prefill_tokens_ahead, view.counters.queued_prompt_tokens[self.node]))
        choices = Choices.of(request, view, "deflection")
        self.predicted_s.append(choices.ttft_s[row_of(choices, self.node, 1)])
        return Placement(self.node, 1)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.integers(1, 20_000),
    shared=st.integers(0, 40),
    count=st.integers(2, 6),
    node=st.integers(0, 1),
    budget=budgets,
)
def test_queued_prompts_count_without_their_cached_tokens(
    prompt: int, shared: int, count: int, node: int, budget: StepBudget
) -> None:
    blocks = blocks_of(prompt)
    hashes = [tuple(i if i < shared else 1000 * number + i for i in range(blocks)) for number in range(count + 1)]
    workload = Workload.of(
        [0.0] + [100.0] * count, [prompt] * (count + 1), [1] * (count + 1), label="queue", block_hashes=tuple(hashes)
    )
    policy = Queued(node)
    config = ClusterConfig(toy_profile(), shape="1P1D", prefix_cache=True, step_budget=budget)
    result = simulate(workload, policy, config)
    uncached = prompt - min(shared * HASH_BLOCK_TOKENS, prompt - 1)
    assert policy.ahead == [(i * uncached, i * uncached) for i in range(count)]
    assert result.counters.prefix_hit_tokens == count * (prompt - uncached)
