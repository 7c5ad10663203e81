"""Prefix caching: the cache itself, the savings of a hit, and invariants of runs with caches."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, Disturbance, Placement, Request, RequestRecord, RequestView, simulate
from envs.cluster.prefix_cache import PrefixCache
from envs.traces import read_trace, write_native
from envs.workload import HASH_BLOCK_TOKENS, Workload
from hardware_profiles import InputError
from tests.envs.shared_prefixes import Given, Watched, assert_sound, blocks_of, conversations, rows, without_hashes
from tests.toy import TOY_LAW, toy_profile

STAMPS = tuple(name for name in RequestRecord._fields if name.endswith("_s"))

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"

# A prompt in a random tree: the hash of a block identifies the path to it.
chains = st.lists(st.integers(0, 1), min_size=1, max_size=6).map(
    lambda path: tuple(int("1" + "".join(map(str, path[: i + 1])), 2) for i in range(len(path)))
)


# ---- the cache alone ------------------------------------------------------------------------------------------------


@given(uses=st.lists(chains, max_size=30), capacity=st.integers(0, 12))
def test_the_cache_keeps_recent_blocks_and_only_whole_prefixes(uses: list[tuple[int, ...]], capacity: int) -> None:
    cache = PrefixCache(capacity * HASH_BLOCK_TOKENS + 511, 0.0)
    order: list[int] = []  # least recently used first; within a prompt the first block is the most recent
    for now_s, chain in enumerate(uses):
        cache.use(chain, float(now_s))
        order = [block for block in order if block not in chain] + list(reversed(chain))
        order = order[max(0, len(order) - capacity) :]
        assert list(cache.blocks) == order
        for block in order:
            assert block >> 1 == 1 or block >> 1 in order
        assert cache.prefix_tokens(chain) == min(len(chain), capacity) * HASH_BLOCK_TOKENS


@given(
    uses=st.lists(st.tuples(st.floats(0, 1), chains), max_size=20),
    age_s=st.floats(0, 3),
    capacity=st.integers(0, 8),
    asked=chains,
)
def test_a_router_sees_the_old_cache_and_looking_changes_nothing(
    uses: list[tuple[float, tuple[int, ...]]], age_s: float, capacity: int, asked: tuple[int, ...]
) -> None:
    quiet, asking = (PrefixCache(capacity * HASH_BLOCK_TOKENS, age_s) for _ in range(2))
    now_s = 0.0
    past: list[tuple[float, int]] = [(-age_s, 0)]
    for gap_s, chain in uses:
        now_s += gap_s
        asking.use(chain, now_s)
        quiet.use(chain, now_s)
        past.append((now_s, quiet.prefix_tokens(asked)))
        known = [tokens for at_s, tokens in past if at_s <= now_s - age_s][-1]
        assert asking.reported_prefix_tokens(asked, now_s) == known
        assert asking.blocks == quiet.blocks
    assert asking.copy().reported_prefix_tokens(asked, now_s + age_s + 1.0) == quiet.prefix_tokens(asked)


# ---- what a hit saves -----------------------------------------------------------------------------------------------


def twice(prompt_tokens: int, shared_blocks: int, output_tokens: int = 3) -> Workload:
    """A prompt, and much later a prompt that shares its first blocks."""
    blocks = blocks_of(prompt_tokens)
    other = tuple(i if i < shared_blocks else 1000 + i for i in range(blocks))
    return Workload.of(
        [0.0, 100.0],
        [prompt_tokens] * 2,
        [output_tokens] * 2,
        label="twice",
        block_hashes=(tuple(range(blocks)), other),
    )


def assert_alike(found: list[RequestRecord], expected: list[RequestRecord]) -> None:
    """Equal records up to rounding, because with prefix caching a KV transfer ends a span."""
    assert [record._replace(**dict.fromkeys(STAMPS, 0.0)) for record in found] == [
        record._replace(**dict.fromkeys(STAMPS, 0.0)) for record in expected
    ]
    for name in STAMPS:
        assert [getattr(record, name) for record in found] == pytest.approx(
            [getattr(record, name) for record in expected], rel=1e-12
        )


def execution_s(prompt_tokens: int, first_token: int, chunk: int = 2048) -> float:
    starts = range(first_token, prompt_tokens, chunk)
    return sum(TOY_LAW.time_s([(min(chunk, prompt_tokens - start), start)], 0, 0) for start in starts)


@settings(max_examples=60)
@given(prompt=st.integers(1, 20_000), shared=st.integers(0, 40))
def test_a_hit_leaves_only_the_cost_of_the_uncached_tokens(prompt: int, shared: int) -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", prefix_cache=True)
    result = simulate(twice(prompt, shared), Given(Placement(0, 1)), config)
    hit = min(shared * HASH_BLOCK_TOKENS, prompt - 1)
    first, second = result.records
    assert first.prefill_end_s - first.prefill_start_s == pytest.approx(execution_s(prompt, 0))
    assert second.prefill_end_s - second.prefill_start_s == pytest.approx(execution_s(prompt, hit))
    assert second.prefill_start_s == 100.0
    sent_blocks = -(-prompt // 16) - hit // 16
    assert second.kv_ready_s - second.prefill_end_s == pytest.approx(1e-4 + sent_blocks * 16 * 100_000 / 20e9)
    # All KV is on the decode node, so decoding takes the same time.
    assert second.last_token_s - second.kv_ready_s == pytest.approx(first.last_token_s - first.kv_ready_s)
    assert result.counters.prefix_hit_tokens == hit
    assert result.counters.kv_bytes_moved == (-(-prompt // 16) + sent_blocks) * 16 * 100_000


def test_a_deflected_prompt_starts_at_its_hit_with_later_chunks() -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", prefix_cache=True, step_budget="fixed")
    result = simulate(twice(3000, 2), Given(Placement(1, 1, (1000, 500, 250))), config)
    chunks = [(250, 1024 + 250 * i) for i in range(7)] + [(226, 2774)]  # the first two were planned for less context
    second = result.records[1]
    assert second.first_token_s - 100.0 == pytest.approx(sum(TOY_LAW.time_s([chunk], 0, 0) for chunk in chunks))


def test_kv_that_arrives_is_cached_on_the_decode_node() -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", prefix_cache=True)
    result = simulate(twice(3000, 6), Given(Placement(0, 1), Placement(1, 1)), config)
    assert result.records[1].first_token_s - 100.0 == pytest.approx(execution_s(3000, 2999))


def test_a_preempted_request_recomputes_only_uncached_tokens() -> None:
    workload = Workload.of(
        [0.0] * 8,
        [1024] * 8,
        [400] * 8,
        label="eight at once",
        block_hashes=tuple((2 * i, 2 * i + 1) for i in range(8)),
    )
    config = ClusterConfig(toy_profile(20_000), shape="1P1D", prefix_cache=True, prefix_cache_share=0.5)
    result = simulate(workload, Given(Placement(0, 1)), config)
    assert_sound(workload, result.records)
    assert result.counters.preemptions > 0
    assert result.counters.prefix_hit_tokens == 1024 * result.counters.preemptions


# ---- what a router can tell -----------------------------------------------------------------------------------------


def test_the_view_shows_hits_by_node_once_they_are_reported() -> None:
    cluster = Cluster(ClusterConfig(toy_profile(), shape="2P1D", prefix_cache=True, report_age_s=0.1), lambda _: None)
    hashes = (7, 8, 9)
    cluster.submit(Request(0, 0.0, 1300, 1, 2.0, 0.1, hashes), Placement(1, 2))
    asked = RequestView(1, 0.0, 1200, 2.0, 0.1, (7, 8, 4))

    def hits() -> list[int]:
        return [cluster.view().prefix_hit_tokens(asked, node) for node in range(3)]

    computed_s = TOY_LAW.time_s([(1300, 0)], 0, 0)
    arrived_s = computed_s + 1e-4 + 1312 * 100_000 / 20e9
    for time_s, known in (
        (computed_s + 0.099, [0, 0, 0]),
        (computed_s + 0.101, [0, 1024, 0]),
        (arrived_s + 0.101, [0, 1024, 1024]),
    ):
        cluster.clock.advance_to(time_s)
        assert hits() == known
    assert cluster.view().prefix_hit_tokens(asked._replace(prompt_tokens=700), 1) == 699
    assert cluster.view().prefix_hit_tokens(asked._replace(block_hashes=()), 1) == 0


def test_without_a_cache_there_are_no_hits() -> None:
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    assert cluster.view().prefix_hit_tokens(RequestView(0, 0.0, 1200, 2.0, 0.1, (1, 2, 3)), 0) == 0


# ---- laws of whole runs ---------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    capacity=st.sampled_from([9_000, 14_000, 400_000]),
    share=st.sampled_from([0.05, 0.3]),
    rule=st.sampled_from(policies.names()),
    streaming=st.booleans(),
    max_seqs=st.sampled_from([2, 256]),
)
def test_no_kv_is_lost_or_left_or_over_its_bound(
    seed: int, capacity: int, share: float, rule: str, streaming: bool, max_seqs: int
) -> None:
    workload = conversations(seed, gap_s=0.02)
    config = ClusterConfig(
        toy_profile(capacity),
        prefix_cache=True,
        prefix_cache_share=share,
        kv_streaming=streaming,
        max_seqs=max_seqs,
    )
    watched = Watched(config, rule)
    watched.play(rows(workload), 0, len(workload))
    assert_sound(workload, watched.drain())
    watched.assert_nothing_is_left()


@pytest.mark.parametrize("rule", policies.names())
def test_without_caching_hashes_do_not_change_a_byte(rule: str) -> None:
    workload = conversations(5)
    config = ClusterConfig(toy_profile())
    known, unknown = (simulate(w, policies.make(rule), config) for w in (workload, without_hashes(workload)))
    assert repr(known.records) == repr(unknown.records)
    assert known.gaps.columns().tobytes() == unknown.gaps.columns().tobytes()
    assert known.counters == unknown.counters
    assert known.counters.prefix_hit_tokens == 0


def test_caching_without_hashes_only_reduces_the_capacity() -> None:
    workload = without_hashes(conversations(5))
    results = [
        simulate(workload, policies.make("static"), config)
        for config in (
            ClusterConfig(toy_profile(10_000), prefix_cache=True, prefix_cache_share=0.3),
            ClusterConfig(toy_profile(7_000)),
        )
    ]
    assert_alike(results[0].records, results[1].records)


def test_host_memory_has_more_hits_and_takes_no_kv_from_requests() -> None:
    workload = conversations(11, requests=200)
    hits = []
    for host_tokens in (0, 5_000, 50_000):
        config = ClusterConfig(
            toy_profile(), prefix_cache=True, prefix_cache_share=0.0, prefix_cache_host_tokens=host_tokens
        )
        result = simulate(workload, policies.make("static"), config)
        hits.append(result.counters.prefix_hit_tokens)
        if not host_tokens:
            off = simulate(workload, policies.make("static"), ClusterConfig(toy_profile()))
            assert_alike(result.records, off.records)
    assert hits[0] == 0 < hits[1] < hits[2]


def test_hits_save_time_and_bytes() -> None:
    workload = conversations(11, requests=300, gap_s=0.08)
    off, on = (
        simulate(workload, policies.make("static"), ClusterConfig(toy_profile(), prefix_cache=cache))
        for cache in (False, True)
    )
    assert 0 < on.counters.prefix_hit_tokens < workload.prompt_tokens.sum()
    assert on.counters.kv_bytes_moved < off.counters.kv_bytes_moved
    assert sum(on.counters.busy_s[:2]) < sum(off.counters.busy_s[:2])
    assert np.mean([r.first_token_s for r in on.records]) < np.mean([r.first_token_s for r in off.records])


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    cut=st.integers(0, 59),
    capacity=st.sampled_from([9_000, 400_000]),
    cache=st.booleans(),
)
def test_a_copy_continues_like_the_original(seed: int, cut: int, capacity: int, cache: bool) -> None:
    requests = rows(conversations(seed))
    config = ClusterConfig(toy_profile(capacity), prefix_cache=cache, kv_streaming=True)
    original = Watched(config, "kairos")
    original.play(requests, 0, cut)
    before = list(original.records)
    twin = original.copy()
    for one in (original, twin):
        one.play(requests, cut, len(requests))
        one.drain()
        one.assert_nothing_is_left()
    assert before + twin.records == original.records
    assert [engine.scheduler.prefix_hit_tokens for engine in twin.cluster.engines] == [
        engine.scheduler.prefix_hit_tokens for engine in original.cluster.engines
    ]
    assert twin.cluster.transfers.bytes_moved == original.cluster.transfers.bytes_moved


@settings(max_examples=60)
@given(
    rule=st.sampled_from(policies.names()),
    node=st.integers(0, 3),
    at_s=st.floats(0.0, 4.0),
    seed=st.integers(0, 200),
    capacity=st.sampled_from([10_000, 400_000]),
    cache=st.booleans(),
    streaming=st.booleans(),
)
def test_a_lost_node_loses_only_its_own_cache(
    rule: str, node: int, at_s: float, seed: int, capacity: int, cache: bool, streaming: bool
) -> None:
    workload = conversations(seed, gap_s=0.03)
    loss = Disturbance(at_s, "loss", node)
    kv_tokens = capacity
    config = ClusterConfig(toy_profile(kv_tokens), prefix_cache=cache, kv_streaming=streaming, disturbances=(loss,))
    watched = Watched(config, rule)
    watched.play(rows(workload), 0, len(workload))
    assert_sound(workload, watched.drain())
    watched.assert_nothing_is_left()
    if cache:
        assert not watched.cluster.transfers.caches[node].blocks


@pytest.mark.parametrize(
    "config", [{"prefix_cache_share": s} for s in (-0.1, 1.0, float("nan"))] + [{"prefix_cache_host_tokens": -1}]
)
def test_an_invalid_capacity_is_an_error(config: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(config))):
        ClusterConfig(toy_profile(), prefix_cache=True, **config)  # type: ignore[arg-type]


# ---- hashes of a workload -------------------------------------------------------------------------------------------


def test_hashes_stay_with_their_requests() -> None:
    workload = conversations(2, requests=40)
    by_prompt = dict(zip(workload.arrival_s.tolist(), workload.block_hashes, strict=True))
    assert workload.head(7).block_hashes == workload.block_hashes[:7]
    assert workload.rate_scale(2.0).block_hashes == workload.block_hashes
    assert workload.with_slos(1.0, 1.0).block_hashes == workload.block_hashes
    thinned = workload.subsample(0.5, seed=1)
    assert thinned.block_hashes == tuple(by_prompt[arrival_s] for arrival_s in thinned.arrival_s.tolist())
    later = workload.window(float(workload.arrival_s[10]))
    assert later.block_hashes == workload.block_hashes[10:]
    assert without_hashes(workload).head(7).block_hashes == ()


@pytest.mark.parametrize(
    ("hashes", "reason"), [(((1,),), "one tuple for each of the 2"), (((1,), (1, 2)), "request 1 has more blocks")]
)
def test_invalid_hashes_are_an_error(hashes: tuple[tuple[int, ...], ...], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Workload.of([0.0, 1.0], [512, 512], [1, 1], label="two", block_hashes=hashes)


def test_hashes_are_read_from_mooncake_and_kept_in_the_native_file(tmp_path: Path) -> None:
    found = [
        {"timestamp": 500, "input_length": 600, "output_length": 1, "hash_ids": [1, 2, 3]},
        {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]},
        {"timestamp": 700, "input_length": 512, "output_length": 1},
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    workload = read_trace(path, "mooncake")
    assert workload.block_hashes == ((1,), (1, 2), ())
    for name in ("w.csv", "w.csv.gz"):
        write_native(workload, tmp_path / name)
        again = read_trace(tmp_path / name, "native")
        assert again.block_hashes == workload.block_hashes
        assert again.prompt_tokens.tolist() == workload.prompt_tokens.tolist()


@pytest.mark.parametrize("bad", [1, "a b", [1.5], [[1]], {"a": 1}, [True], [None]])
def test_the_error_for_bad_hashes_names_the_line(tmp_path: Path, bad: object) -> None:
    row = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": bad}
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"trace.jsonl:1: hash_ids is .*; must be a list of whole numbers"):
        read_trace(path, "mooncake")


@pytest.mark.skipif(not TRACES.is_dir(), reason=f"the recorded traces are not at {TRACES}")
def test_the_mooncake_trace_has_hits() -> None:
    workload = read_trace(TRACES / "mooncake_synthetic.jsonl.gz", "mooncake")
    hashes = workload.block_hashes
    assert [len(mine) for mine in hashes] == (-(-workload.prompt_tokens // HASH_BLOCK_TOKENS)).tolist()
    seen: set[int] = set()
    again = 0
    for mine in hashes:
        again += sum(block in seen for block in mine)
        seen.update(mine)
    endless = again / sum(map(len, hashes))
    assert 0.3 < endless < 0.9  # the hits of an unlimited cache
