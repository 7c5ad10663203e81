"""The step law's laws: closed form, monotonicity, additivity, and errors outside its table."""

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import StepLaw, load_profile

LAWS = {name: load_profile(name).law for name in ("a100-qwen3-8b", "a100-deepseek-v2-lite")}

laws = st.sampled_from(sorted(LAWS)).map(LAWS.__getitem__)
chunk_lists = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 32768)), max_size=4)
batches = st.integers(1, 256)
kv_counts = st.integers(0, 400_000)


@given(law=laws, steps=st.integers(0, 100), batch=batches, kv=kv_counts)
def test_the_closed_form_of_a_decode_run_equals_the_sum_of_its_steps(
    law: StepLaw, steps: int, batch: int, kv: int
) -> None:
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
def test_a_mixed_steps_parts_share_one_pass_over_the_tokens(
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
def test_a_step_equals_a_hand_computation(law: StepLaw) -> None:
    base_s, kv_s, end = law.decode_line(3, 999)
    assert end > 999
    expected = (
        law.token_time_s[100 + 50 + 3]
        + (law.chunk_const_s + law.chunk_context_s * (100 * 7 + 50 * 0) + law.chunk_self_s * (100**2 + 50**2) / 2)
        + law.chunk_reread_s * (7 + 0)
        + (base_s + kv_s * 999)
    )
    assert law.time_s([(100, 7), (50, 0)], 3, 999) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_step_outside_the_table_is_an_error(law: StepLaw) -> None:
    assert law.max_step_tokens >= 8192 + 512
    with pytest.raises(ValueError, match="outside the table"):
        law.time_s([(law.max_step_tokens, 0)], 1, 0)
    with pytest.raises(ValueError, match="outside the table"):
        law.time_s([(8, 0)], -1, 0)
    with pytest.raises(ValueError, match="outside the table"):
        law.time_s((), law.max_decode_batch + 1, 0)


@given(law=laws, batch=batches, kv=kv_counts)
def test_a_line_ends_where_the_next_one_begins(law: StepLaw, batch: int, kv: int) -> None:
    base_s, kv_s, end = law.decode_line(batch, kv)
    assert kv < end
    if end < math.inf:
        next_base_s, next_kv_s, next_end = law.decode_line(batch, int(end))
        assert next_end > end
        assert next_base_s + next_kv_s * end == pytest.approx(base_s + kv_s * end, rel=1e-9)


def test_without_pieces_d_is_the_straight_line() -> None:
    law = StepLaw((0.0, 1.0, 1.5, 2.0), 0.1, 0.0, 0.0, 0.25, 0.125, (0.0, 0.5, 0.25, 0.25))
    assert law.time_s((), 2, 10) == 1.5 + 0.25 + 0.125 * 2 + 0.25 * 10
    assert law.max_decode_batch == 3
    assert law.decode_run_s(3, 2, 10) == sum(law.time_s((), 2, 10 + 2 * i) for i in range(3))


@given(law=laws, chunks=chunk_lists, batch=st.integers(0, 256), kv=kv_counts, factor=st.floats(0.1, 10.0))
def test_a_scaled_law_takes_factor_times_as_long(
    law: StepLaw, chunks: list[tuple[int, int]], batch: int, kv: int, factor: float
) -> None:
    assert scaled(law, factor).time_s(chunks, batch, kv) == pytest.approx(factor * law.time_s(chunks, batch, kv))


@functools.lru_cache(maxsize=4)
def scaled(law: StepLaw, factor: float) -> StepLaw:
    return law.scaled(factor)


@given(law=laws, chunks=chunk_lists, batch=st.integers(0, 256), kv=kv_counts)
def test_overheads_are_added_to_the_right_steps(
    law: StepLaw, chunks: list[tuple[int, int]], batch: int, kv: int
) -> None:
    extra_s = with_overhead(law).time_s(chunks, batch, kv) - law.time_s(chunks, batch, kv)
    expected_s = (0.5 if chunks or batch else 0.0) + (0.25 + 0.125 * batch if batch else 0.0)
    assert extra_s == pytest.approx(expected_s)


@functools.lru_cache
def with_overhead(law: StepLaw) -> StepLaw:
    return law.with_overhead(step_s=0.5, decode_s=0.25, seq_s=0.125)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_repr_of_a_law_is_short(law: StepLaw) -> None:
    assert len(repr(law)) < 400


# ---- the largest chunk ----------------------------------------------------------------------------------------------


@given(
    law=laws,
    limit_s=st.floats(-0.01, 0.5),
    step_tokens=st.integers(0, 256),
    context=st.integers(0, 32768),
    most=st.integers(1, 2048),
    grain=st.sampled_from([1, 16, 32, 100, 3000]),
)
def test_the_largest_chunk_equals_that_of_trying_every_size(
    law: StepLaw, limit_s: float, step_tokens: int, context: int, most: int, grain: int
) -> None:
    def takes_s(n: int) -> float:
        return law.token_time_s[step_tokens + n] + law.attention_s(n, context)

    sizes = [most, *range(grain, most, grain)]
    # A size whose time equals the limit up to rounding may count either way.
    least, largest = (
        max((n for n in sizes if takes_s(n) <= limit_s * share), default=0) for share in (1 - 1e-12, 1 + 1e-12)
    )
    if limit_s < 0:
        least, largest = largest, least
    found = law.largest_chunk(limit_s, step_tokens, context, most, grain)
    assert least <= found <= largest
    assert found in (0, *sizes)


@given(law=laws, step_tokens=st.integers(0, 256), context=st.integers(0, 32768), n=st.integers(1, 64))
def test_a_chunk_at_the_limit_fits_and_a_lower_limit_needs_a_smaller_one(
    law: StepLaw, step_tokens: int, context: int, n: int
) -> None:
    grain = 32
    limit_s = (law.token_time_s[step_tokens + n * grain] + law.attention_s(n * grain, context)) * (1 + 1e-12)
    assert law.largest_chunk(limit_s, step_tokens, context, 65 * grain, grain) >= n * grain
    assert law.largest_chunk(limit_s * 0.5, step_tokens, context, 65 * grain, grain) < n * grain
