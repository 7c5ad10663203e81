"""The step law's laws: closed form, monotonicity, additivity, and errors outside its table."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import StepLaw, load_profile

LAWS = {name: load_profile(name).law for name in ("a100-qwen3-8b", "a100-llama31-8b")}

laws = st.sampled_from(sorted(LAWS)).map(LAWS.__getitem__)
chunk_lists = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 32768)), max_size=4)
batches = st.integers(1, 256)
kv_counts = st.integers(0, 400_000)


@given(law=laws, steps=st.integers(0, 100), batch=batches, kv=kv_counts)
def test_the_closed_form_of_a_decode_run_is_the_sum_of_its_steps(law: StepLaw, steps: int, batch: int, kv: int) -> None:
    one_by_one = math.fsum(law.time_s((), batch, kv + batch * i) for i in range(steps))
    assert law.decode_run_s(steps, batch, kv) == pytest.approx(one_by_one, rel=1e-12)


@given(law=laws, chunks=chunk_lists, batch=batches, kv=kv_counts, more=st.integers(1, 4096))
def test_more_work_never_takes_less_time(
    law: StepLaw, chunks: list[tuple[int, int]], batch: int, kv: int, more: int
) -> None:
    time_s = law.time_s(chunks, batch, kv)
    assert law.time_s([*chunks, (more, 0)], batch, kv) >= time_s
    assert law.time_s(chunks, batch, kv + more) >= time_s
    if chunks:
        (new, context), *rest = chunks
        assert law.time_s([(new + more, context), *rest], batch, kv) >= time_s
        assert law.time_s([(new, context + more), *rest], batch, kv) >= time_s


@given(law=laws, chunks=chunk_lists.filter(bool), batch=batches, kv=kv_counts)
def test_a_mixed_step_is_its_parts_sharing_one_pass_over_the_tokens(
    law: StepLaw, chunks: list[tuple[int, int]], batch: int, kv: int
) -> None:
    new = sum(tokens for tokens, _ in chunks)
    F = law.token_time_s
    attention_s = (law.time_s(chunks, 0, 0) - F[new]) + (law.time_s((), batch, kv) - F[batch])
    assert law.time_s(chunks, batch, kv) == pytest.approx(F[new + batch] + attention_s, rel=1e-12)


@given(law=laws, chunks=chunk_lists, batch=batches, kv=kv_counts)
def test_the_order_of_chunks_does_not_matter(law: StepLaw, chunks: list[tuple[int, int]], batch: int, kv: int) -> None:
    assert law.time_s(chunks[::-1], batch, kv) == law.time_s(chunks, batch, kv)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_an_empty_step_takes_no_time(law: StepLaw) -> None:
    assert law.time_s((), 0, 0) == 0.0


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_hand_computed_step(law: StepLaw) -> None:
    expected = (
        law.token_time_s[100 + 50 + 3]
        + (law.chunk_const_s + law.chunk_context_s * (100 * 7 + 50 * 0) + law.chunk_self_s * (100**2 + 50**2) / 2)
        + (law.decode_const_s + law.decode_seq_s * 3 + law.decode_kv_s[3] * 999)
    )
    assert law.time_s([(100, 7), (50, 0)], 3, 999) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_step_outside_the_table_is_an_error(law: StepLaw) -> None:
    assert law.max_step_tokens >= 8192 + 512
    with pytest.raises(ValueError, match="outside the table"):
        law.time_s([(law.max_step_tokens, 0)], 1, 0)
    with pytest.raises(ValueError, match="outside the table"):
        law.time_s([(8, 0)], -1, 0)
