"""The KV memory of a node: admission and exact accounting."""

from hypothesis import given
from hypothesis import strategies as st

from envs.cluster.kv_pool import KvPool

CAPACITY = 10_000
pools = st.builds(KvPool, st.just(CAPACITY), st.floats(0, 0.99))
amounts = st.tuples(st.integers(1, CAPACITY), st.integers(0, 2_000))


@given(pool=pools, asked=st.lists(st.tuples(st.sampled_from(["take", "take_surely", "release"]), amounts), max_size=40))
def test_used_tokens_are_those_taken_and_not_released(pool: KvPool, asked: list[tuple[str, tuple[int, int]]]) -> None:
    held: list[int] = []
    for action, (tokens, spare_tokens) in asked:
        if action == "release":
            if held:
                pool.release(held.pop())
        elif getattr(pool, action)(tokens, spare_tokens):
            held.append(tokens)
        assert 0 <= pool.used_tokens == sum(held) <= CAPACITY
        assert pool.free_tokens == CAPACITY - pool.used_tokens


@given(share=st.floats(0, 0.99), used=st.integers(0, CAPACITY), amount=amounts)
def test_a_request_leaves_the_watermark_free_unless_it_is_alone(
    share: float, used: int, amount: tuple[int, int]
) -> None:
    tokens, spare_tokens = amount
    admitting = CAPACITY - int(share * CAPACITY)
    for surely in (False, True):
        pool = KvPool(CAPACITY, share)
        pool.used_tokens = used
        limit = CAPACITY if not used and not surely else admitting
        fits = used + tokens + spare_tokens <= limit
        assert (pool.take_surely if surely else pool.take)(tokens, spare_tokens) == fits
        assert pool.used_tokens == used + fits * tokens


@given(share=st.floats(0, 0.99), used=st.integers(0, CAPACITY), amount=amounts)
def test_a_sure_reservation_always_fits(share: float, used: int, amount: tuple[int, int]) -> None:
    sure, later = KvPool(CAPACITY, share), KvPool(CAPACITY, share)
    sure.used_tokens = later.used_tokens = used
    assert later.take(*amount) or not sure.take_surely(*amount)
