"""The law of mock engines: close to the profile's, and the same in tables and in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.mock_stack.mock_timing import HAND_OVER_TOKENS, MockLaw, mocked
from hardware_profiles import load_profile, profile_names

PROFILE = load_profile("a100-qwen3-8b")
LAW = MockLaw.of(PROFILE.law)


@pytest.mark.parametrize("name", profile_names())
def test_the_law_is_close_to_that_of_every_profile(name: str) -> None:
    profile = load_profile(name)
    law = mocked(profile).law
    steps = [([(n, 0)], 0, 0) for n in (128, 512, 1024, 2048)] + [([], b, 1000 * b) for b in (1, 16, 64)]
    errors = [law.time_s(*step) / profile.law.time_s(*step) - 1 for step in steps]
    experts = "30b-a3b" in name or "deepseek" in name  # their decodes grow less than linearly with the batch
    assert max(map(abs, errors)) < (0.4 if experts else 0.13)


def test_fitting_a_mock_law_gives_it_back() -> None:
    assert MockLaw.of(mocked(PROFILE).law) == pytest.approx(LAW, rel=1e-6)


@given(st.integers(HAND_OVER_TOKENS + 1, 2048), st.integers(1, 200), st.integers(20, 5000))
def test_tables_and_step_law_are_one_law(prompt_tokens: int, batch: int, context: int) -> None:
    law = LAW.step_law(PROFILE.law)
    tables = LAW.tables(2048, 2_000_000, 131_072)
    alone_ms = np.interp(prompt_tokens, tables["prefill_isl"], tables["prefill_ttft_ms"])
    assert alone_ms == pytest.approx(1e3 * law.time_s([(prompt_tokens, 0)], 0, 0), rel=1e-9)
    kv = batch * context
    by_context = [np.interp(kv, tables["decode_active_kv_tokens"], column) for column in tables["decode_itl"].T]
    decode_ms = np.interp(context, tables["decode_context_length"], by_context)
    assert decode_ms == pytest.approx(1e3 * law.time_s([], batch, kv), rel=0.01)
    both_ms = 1e3 * law.time_s([(prompt_tokens, 0)], batch, kv)
    assert both_ms == pytest.approx(alone_ms + decode_ms, rel=0.01)


def test_handed_over_requests_pay_for_their_few_tokens_only() -> None:
    tables = LAW.tables(2048, 100_000, 131_072)
    few_ms = float(np.interp(HAND_OVER_TOKENS, tables["prefill_isl"], tables["prefill_ttft_ms"]))
    assert few_ms == pytest.approx(1e3 * LAW.token_s * HAND_OVER_TOKENS)
