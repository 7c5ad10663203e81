"""Variations of a workload."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.generators import MAX_OUTPUT_TOKENS, MAX_PROMPT_TOKENS, families, generate
from envs.variation import Variation

FACTORS = st.floats(0.2, 6.0)


@given(st.sampled_from(families()), FACTORS, FACTORS, st.integers(0, 50))
def test_lengths_are_multiples_within_the_usual_limits(family: str, prompt: float, output: float, seed: int) -> None:
    workload = generate(family, rate_rps=10.0, requests=50, seed=seed)
    varied = Variation(prompt, output).applied(workload, seed)
    assert np.array_equal(varied.arrival_s, workload.arrival_s)
    for name, factor, most in (
        ("prompt_tokens", prompt, MAX_PROMPT_TOKENS),
        ("output_tokens", output, MAX_OUTPUT_TOKENS),
    ):
        before, after = getattr(workload, name), getattr(varied, name)
        assert (after == np.minimum(np.ceil(factor * before), most)).all()
    for name in ("ttft_slo_s", "tbt_slo_s"):
        assert np.array_equal(getattr(varied, name), getattr(workload, name))


@given(st.floats(5.0, 40.0), st.floats(10.0, 80.0), st.integers(0, 50))
def test_pauses_keep_the_order_and_make_the_other_gaps_shorter(busy_s: float, pause_s: float, seed: int) -> None:
    workload = generate("LPLD", rate_rps=10.0, requests=400, seed=seed)
    varied = Variation(1.0, 1.0, busy_s, pause_s).applied(workload, seed)
    shorter = busy_s / (busy_s + pause_s)
    before_s, after_s = np.diff(workload.arrival_s), np.diff(varied.arrival_s)
    paused = after_s > shorter * before_s + 1e-9
    assert after_s[~paused] == pytest.approx(shorter * before_s[~paused], abs=1e-9)
    assert varied.arrival_s[0] >= shorter * workload.arrival_s[0]


def test_the_mean_rate_stays_the_same() -> None:
    workload = generate("LPLD", rate_rps=10.0, requests=100_000, seed=1)
    varied = Variation(1.0, 1.0, 10.0, 30.0).applied(workload, 1)
    assert varied.rate_rps == pytest.approx(10.0, rel=0.1)
    again = Variation(1.0, 1.0, 10.0, 30.0).applied(workload, 1)
    assert np.array_equal(varied.arrival_s, again.arrival_s)
    assert (np.diff(varied.arrival_s) > 5.0).sum() > 100
