"""A router's predictions for a request, compared with the step law summed chunk by chunk."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.chunk_plan import CHUNK_CANDIDATES, LocalPrefill, plan_chunks
from envs.prediction import prefill_s, queue_wait_s
from hardware_profiles import StepLaw, load_profile
from tests.toy import TOY_LAW

LAWS = {
    "toy": TOY_LAW,
    "A100": load_profile("a100-qwen3-8b").law,
    "dear context": replace(TOY_LAW, chunk_context_s=1e-7),
    "latent attention": replace(TOY_LAW, chunk_reread_s=6e-7),
}


@dataclass(frozen=True)
class Named:
    """A law whose repr is its name."""

    name: str

    @property
    def law(self) -> StepLaw:
        return LAWS[self.name]


laws = st.sampled_from([Named(name) for name in LAWS])


@given(on=laws, chunk=st.integers(1, 2048), context=st.integers(0, 100_000))
def test_a_lone_chunk_takes_the_step_laws_time(on: Named, chunk: int, context: int) -> None:
    assert on.law.chunk_step_s(chunk, context) == pytest.approx(on.law.time_s([(chunk, context)], 0, 0), rel=1e-12)


@given(on=laws, prompt=st.integers(1, 60_000), chunk=st.integers(1, 2048))
def test_prefill_execution_is_the_sum_over_its_chunks(on: Named, prompt: int, chunk: int) -> None:
    total_s = sum(on.law.time_s([(min(chunk, prompt - done), done)], 0, 0) for done in range(0, prompt, chunk))
    assert prefill_s(on.law, prompt, chunk) == pytest.approx(total_s, rel=1e-9)


@given(on=laws, ahead=st.integers(0, 100_000), chunk=st.integers(1, 2048))
def test_the_queue_wait_counts_chunks_at_half_the_queues_context(on: Named, ahead: int, chunk: int) -> None:
    # (L / chi) * T_step(chi, L / 2), written out with the law's coefficients.
    law = on.law
    step_s = law.token_time_s[chunk] + law.chunk_const_s
    step_s += (law.chunk_context_s * chunk + law.chunk_reread_s) * ahead / 2 + law.chunk_self_s * chunk * chunk / 2
    assert queue_wait_s(on.law, ahead, chunk, ahead / 2) == pytest.approx(ahead / chunk * step_s, rel=1e-9)


@given(on=laws, ahead=st.integers(1, 100_000), chunk=st.integers(1, 2048))
def test_the_wait_grows_with_the_tokens_ahead_from_zero(on: Named, ahead: int, chunk: int) -> None:
    assert queue_wait_s(on.law, 0, chunk, 0.0) == 0.0
    assert queue_wait_s(on.law, ahead + 1, chunk, ahead / 2) > queue_wait_s(on.law, ahead, chunk, ahead / 2) > 0.0


# ---- the greedy schedule --------------------------------------------------------------------------------------------


def step_s(law: StepLaw, chunks: list[int], chunk: int, batch: int, kv_tokens: int) -> float:
    """Duration of the step with `chunk` after `chunks`; every decode has grown by one token per step."""
    return law.time_s([(chunk, sum(chunks))], batch, kv_tokens + len(chunks) * batch)


batches = st.one_of(st.just(0), st.integers(1, 256))
states = {
    "on": laws,
    "prompt": st.one_of(st.integers(1, 3000), st.integers(1, 30_000)),
    "batch": batches,
    "kv_tokens": st.integers(0, 200_000),
    "budget_s": st.floats(0.011, 0.25),
    "token_budget": st.sampled_from([2048, 2048, 1024, 700, 300]),
}


@settings(max_examples=300)
@given(**states)
def test_every_chunk_is_the_largest_candidate_that_fits(
    on: Named, prompt: int, batch: int, kv_tokens: int, budget_s: float, token_budget: int
) -> None:
    plan = plan_chunks(on.law, prompt, batch, kv_tokens * bool(batch), budget_s, token_budget)
    chunks: list[int] = []
    total_s = 0.0
    longest_s = 0.0
    rounding = 1e-9
    while sum(chunks) < prompt:
        shortened = [min(candidate, prompt - sum(chunks)) for candidate in CHUNK_CANDIDATES]
        in_budget = [n for n in shortened if n + batch <= token_budget]
        times_s = {n: step_s(on.law, chunks, n, batch, kv_tokens * bool(batch)) for n in in_budget}
        fits = [n for n in in_budget if times_s[n] <= budget_s - rounding]
        nearly = [n for n in in_budget if abs(times_s[n] - budget_s) <= rounding]
        if plan is None:
            if not fits:
                return
            n = fits[0]
        else:
            assert len(plan.chunks) > len(chunks), "a plan covers the prompt"
            n = plan.chunks[len(chunks)]
            assert n in fits[:1] + nearly
        chunks.append(n)
        total_s += times_s[n]
        longest_s = max(longest_s, times_s[n])
    assert plan is not None, "a schedule exists"
    assert plan.chunks == tuple(chunks)
    assert sum(plan.chunks) == prompt
    assert plan.total_s == pytest.approx(total_s, rel=1e-9)
    assert plan.slack_s == pytest.approx(budget_s - longest_s, abs=1e-9)
    assert plan.longest_s == pytest.approx(longest_s, rel=1e-9)
    assert plan.steps == len(chunks)
    assert plan.slack_s >= 0.0


def parts(plan: LocalPrefill) -> tuple[object, ...]:
    return plan.chunks, plan.steps, plan.total_s, plan.longest_s, plan.slack_s


@settings(max_examples=200)
@given(**states)
def test_if_no_chunk_fits_the_smallest_is_used_with_negative_slack(
    on: Named, prompt: int, batch: int, kv_tokens: int, budget_s: float, token_budget: int
) -> None:
    kv_tokens *= bool(batch)
    strict = plan_chunks(on.law, prompt, batch, kv_tokens, budget_s, token_budget)
    forced = plan_chunks(on.law, prompt, batch, kv_tokens, budget_s, token_budget, smallest_if_none=True)
    assert forced is not None
    if strict is not None:
        assert parts(forced) == parts(strict)
        return
    assert sum(forced.chunks) == prompt
    times_s = [step_s(on.law, list(forced.chunks[:i]), n, batch, kv_tokens) for i, n in enumerate(forced.chunks)]
    assert forced.total_s == pytest.approx(sum(times_s), rel=1e-9)
    assert forced.slack_s == pytest.approx(budget_s - max(times_s), abs=1e-9)
    if token_budget - batch >= CHUNK_CANDIDATES[-1]:
        assert forced.slack_s < 0.0  # otherwise the engine's token budget left no room
    assert all(n <= 128 for n, time_s in zip(forced.chunks, times_s, strict=True) if time_s > budget_s)


@settings(max_examples=100)
@given(on=laws, prompt=st.integers(1, 20_000), batch=batches, budget_s=st.floats(0.02, 0.2))
def test_a_larger_budget_is_never_slower(on: Named, prompt: int, batch: int, budget_s: float) -> None:
    tight = plan_chunks(on.law, prompt, batch, 300 * batch, budget_s, 2048)
    loose = plan_chunks(on.law, prompt, batch, 300 * batch, budget_s * 1.5, 2048)
    if tight is not None:
        assert loose is not None
        assert len(loose.chunks) <= len(tight.chunks)


def test_given_candidates_are_used() -> None:
    plan = plan_chunks(TOY_LAW, 1000, 0, 0, 0.1, 2048, candidates=(300, 50))
    assert plan is not None
    assert plan.chunks == (300, 300, 300, 100)


def test_one_candidate_is_a_fixed_chunk() -> None:
    plan = plan_chunks(TOY_LAW, 1000, 0, 0, 0.1, 2048, candidates=(256,))
    assert plan is not None
    assert plan.chunks == (256, 256, 256, 232)
    assert plan_chunks(TOY_LAW, 1000, 0, 0, 0.01, 2048, candidates=(256,)) is None
