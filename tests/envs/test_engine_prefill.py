"""Predictions for chunks that the engine chooses (`step_budget="slo"`)."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.choices import CHOICE_SETS, Choices
from envs.cluster import ClusterConfig, NodeReport, Placement, RequestView, RouterView, simulate
from envs.generators import generate
from envs.prediction import NodeSteps, local_prefill, shared_queue_s
from envs.workload import Workload
from tests.policies.states import IDLE, HandMade, behind, changed, decoding, mixed_views, requests, row_of, views
from tests.toy import TOY_LAW, toy_profile

TOPOLOGY = HandMade("1P1D", step_budget="slo").topology
SHARE, GRAIN, BUDGET = TOPOLOGY.slo_share, TOPOLOGY.chunk_grain_tokens, TOPOLOGY.token_budget

busy = st.builds(decoding, st.integers(1, 128), st.integers(1000, 150_000), st.floats(0.012, 0.3))


def engine_steps(report: NodeReport, prompt: int) -> tuple[list[int], list[float], bool]:
    """Chunk and duration of each step by the engine's rule, and whether the smallest chunk was forced."""
    chunks: list[int] = []
    times_s: list[float] = []
    batch, kv_tokens, done, forced = report.decode_batch, report.decode_kv_tokens, 0, False

    def step_s(n: int) -> float:
        return TOY_LAW.time_s([(n, done)], batch, kv_tokens)

    while done < prompt:
        most = min(prompt - done, BUDGET - batch)
        sizes = [most, *range((most - 1) // GRAIN * GRAIN, 0, -GRAIN)]
        n = next((n for n in sizes if step_s(n) <= SHARE * report.tbt_slo_s), 0)
        if not n:
            forced = True
            n = min(GRAIN, most)
        chunks.append(n)
        times_s.append(step_s(n))
        done += n
        kv_tokens += batch
    return chunks, times_s, forced


@settings(max_examples=150, deadline=None)
@given(report=busy, prompt=st.integers(1, 12_000))
def test_the_prediction_is_close_to_the_engines_steps(report: NodeReport, prompt: int) -> None:
    found = NodeSteps(TOPOLOGY, 1, report).engine_prefill(prompt)
    chunks, times_s, forced = engine_steps(report, prompt)
    assert found.chunks == ()
    limit_s = SHARE * report.tbt_slo_s
    if found.keeps and not forced:
        assert found.steps == pytest.approx(len(chunks), rel=0.35, abs=1)
        assert found.total_s == pytest.approx(sum(times_s), rel=0.25, abs=max(times_s))
        assert found.longest_s <= limit_s * (1 + 1e-9)
    assert found.slack_s == pytest.approx(limit_s - found.longest_s, abs=1e-12) or found.slack_s == 0.0


@settings(max_examples=150, deadline=None)
@given(report=busy, prompt=st.integers(1, 6000))
def test_a_prefill_is_feasible_if_the_smallest_chunk_is_never_forced(report: NodeReport, prompt: int) -> None:
    """This holds except for the KV that its decodes gain meanwhile, which depends on the number of steps."""
    _, times_s, forced = engine_steps(report, prompt)
    found = local_prefill(TOPOLOGY, 1, report, prompt, 0.1)
    limit_s = SHARE * report.tbt_slo_s
    if found is not None and forced:
        assert max(times_s) <= 1.02 * limit_s
    if found is None and not forced:
        least = min(GRAIN, prompt)
        kv_tokens = report.decode_kv_tokens + 2 * len(times_s) * report.decode_batch
        assert TOY_LAW.time_s([(least, prompt - least)], report.decode_batch, kv_tokens) >= limit_s


@given(prompt=st.integers(1, 20_000))
def test_without_decodes_only_the_token_budget_limits_chunks(prompt: int) -> None:
    found = local_prefill(TOPOLOGY, 1, IDLE, prompt, 0.001)
    assert found is not None
    assert found.steps == -(-prompt // BUDGET)
    assert found.slack_s == inf
    sizes = [(min(BUDGET, prompt - done), done) for done in range(0, prompt, BUDGET)]
    assert found.total_s == pytest.approx(sum(TOY_LAW.time_s([size], 0, 0) for size in sizes), rel=1e-9)
    assert found.longest_s <= max(TOY_LAW.time_s([size], 0, 0) for size in sizes) * (1 + 1e-9)


@given(report=busy, prompt=st.integers(1, 12_000), wider=st.floats(1.0, 2.0))
def test_a_looser_slo_is_never_slower(report: NodeReport, prompt: int, wider: float) -> None:
    tight = NodeSteps(TOPOLOGY, 1, report).engine_prefill(prompt)
    loose = NodeSteps(TOPOLOGY, 1, changed(report, tbt_slo_s=wider * report.tbt_slo_s)).engine_prefill(prompt)
    assert loose.steps <= tight.steps
    assert loose.keeps or not tight.keeps


def test_prompts_queued_next_to_decodes_share_bounded_steps() -> None:
    report = changed(decoding(8, 4000, 0.05), prefill_tokens_ahead=6000)
    view = HandMade("1P1D", behind(6000), report, step_budget="slo")
    view.counters.queued_prompts[:] = [4, 4]
    view.counters.queued_prompt_tokens[:] = [6000, 6000]
    free, bounded = (NodeSteps(view.topology, node, view.reports[node]) for node in (0, 1))
    chunk, fits = bounded.engine_chunk(BUDGET, 750)
    assert fits
    assert chunk % GRAIN == 0
    assert bounded.step_s(chunk, 750) <= SHARE * 0.05 < bounded.step_s(chunk + GRAIN, 750)
    assert shared_queue_s(view, 1, bounded, 6000) == pytest.approx(6000 / chunk * bounded.step_s(chunk, 750))
    assert shared_queue_s(view, 0, free, 6000) == pytest.approx(6000 / BUDGET * free.step_s(BUDGET, 750))


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", policies.names())
@settings(max_examples=20, deadline=None)
@given(view=views(step_budget="slo"), request=requests)
def test_no_policy_makes_a_chunk_plan(rule: str, view: HandMade, request: RequestView) -> None:
    placed = policies.make(rule).place(request, view)
    assert placed is not None
    assert placed.chunk_plan == ()


@pytest.mark.parametrize("choice_set", CHOICE_SETS)
@settings(max_examples=60, deadline=None)
@given(view=mixed_views(step_budget="slo"), request=requests)
def test_a_choice_is_feasible_if_its_prefill_has_slack(choice_set: str, view: HandMade, request: RequestView) -> None:
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    for one in choices.prefill:
        assert one.chunk_plan == ()
        assert one.steps >= 1
        if not view.reports[one.node].decode_batch:
            assert one.slack_s == request.tbt_slo_s
    sources = [choices.prefill[position] for position in choices.pairing.prefill_index]
    assert all(ttft_s >= one.execution_s for ttft_s, one in zip(choices.ttft_s, sources, strict=True))
    safe = [one.slack_s >= 0.0 for one in sources]
    assert choices.feasible == (safe if any(safe) else [choices.keeps_roles(row) for row in range(len(choices))])


@pytest.mark.parametrize("knobs", ["beta=0.5", "chunk=128"])
@settings(max_examples=20, deadline=None)
@given(view=views(step_budget="slo"), request=requests)
def test_knobs_of_kairos_for_chunk_plans_have_no_effect(knobs: str, view: HandMade, request: RequestView) -> None:
    assert policies.make(f"kairos:{knobs}").place(request, view) == policies.make("kairos").place(request, view)


class Local:
    """Places every request on the decode node and records the predictions."""

    name = "local"

    def __init__(self) -> None:
        self.predicted_s: list[float] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        choices = Choices.of(request, view, "deflection")
        row = row_of(choices, 1, 1)
        self.predicted_s.append(choices.ttft_s[row])
        return choices.placement(row)


@settings(max_examples=25, deadline=None)
@given(prompt=st.integers(200, 8000), residents=st.integers(1, 24), tbt_slo_s=st.floats(0.03, 0.2))
def test_next_to_decodes_the_prediction_is_close(prompt: int, residents: int, tbt_slo_s: float) -> None:
    arrivals = [0.0] * residents + [5.0]
    prompts = [300] * residents + [prompt]
    outputs = [5000] * residents + [2]
    workload = Workload.of(arrivals, prompts, outputs, label="residents", tbt_slo_s=tbt_slo_s)
    policy = Local()
    config = ClusterConfig(toy_profile(), shape="1P1D", report_age_s=0.0, step_budget="slo")
    last = simulate(workload, policy, config).records[-1]
    assert last.first_token_s - 5.0 == pytest.approx(policy.predicted_s[-1], rel=0.25, abs=tbt_slo_s)


@pytest.mark.parametrize("rule", [name for name in policies.names() if name not in ("random", "round-robin")])
def test_every_policy_runs_a_busy_cluster(rule: str) -> None:
    workload = generate("burst", rate_rps=16.0, requests=80, seed=4)
    records = simulate(workload, policies.make(rule), ClusterConfig(toy_profile(), step_budget="slo")).records
    assert all(record.last_token_s > 0.0 for record in records if record.decode_node >= 0)
