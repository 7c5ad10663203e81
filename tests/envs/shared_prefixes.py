"""Prompts with shared prefixes, and runs that are checked after every event."""

from dataclasses import replace
from math import inf

import numpy as np

import policies
from envs.cluster import Cluster, ClusterConfig, Placement, Request, RequestRecord, RequestView
from envs.workload import HASH_BLOCK_TOKENS, Workload


class Given:
    """Uses given placements in order."""

    name = "given"

    def __init__(self, *placements: Placement) -> None:
        self.placements = placements

    def place(self, request: RequestView, _view: object) -> Placement:
        return self.placements[request.number % len(self.placements)]


def blocks_of(prompt_tokens: int) -> int:
    return -(-prompt_tokens // HASH_BLOCK_TOKENS)


def conversations(seed: int, requests: int = 60, gap_s: float = 0.05, longest: int = 6_000) -> Workload:
    """Prompts of a few conversations; each is a prefix of the next one, and some are cut short and continued."""
    rng = np.random.default_rng(seed)
    prompt_tokens = rng.integers(1, longest, requests)
    prompt_tokens[rng.random(requests) < 0.2] = longest - 1  # exactly the same prompt
    speakers = rng.integers(0, 5, requests)
    hashes = [
        tuple(1000 * int(speaker) + i for i in range(blocks_of(int(tokens))))
        for speaker, tokens in zip(speakers, prompt_tokens, strict=True)
    ]
    return Workload.of(
        np.cumsum(rng.exponential(gap_s, requests)),
        prompt_tokens,
        rng.choice([1, 2, 50, 200], requests),
        label="conversations",
        block_hashes=tuple(hashes),
    )


def rows(workload: Workload) -> list[tuple]:
    """The arguments of `Request` after the number, for each request."""
    columns = (
        workload.arrival_s,
        workload.prompt_tokens,
        workload.output_tokens,
        workload.ttft_slo_s,
        workload.tbt_slo_s,
    )
    hashes = workload.block_hashes or ((),) * len(workload)
    return list(zip(*[column.tolist() for column in columns], hashes, strict=True))


class Watched:
    """A cluster under a policy, whose bounds are checked after every event."""

    def __init__(self, config: ClusterConfig, rule: str) -> None:
        self.records: list[RequestRecord] = []
        self.cluster = Cluster(config, self.records.append)
        self.policy = policies.make(rule, seed=7)
        self.split_tokens: dict[int, int] = {}  # split tokens of each request; 0 if the prompt is not split

    def copy(self) -> "Watched":
        twin = Watched.__new__(Watched)
        twin.records = []
        twin.cluster = self.cluster.copy(twin.records.append)
        twin.policy = self.policy
        twin.split_tokens = self.split_tokens.copy()
        return twin

    def play(self, requests: list[tuple], first: int, last: int) -> None:
        for number in range(first, last):
            arrival_s, prompt_tokens, _, ttft_slo_s, tbt_slo_s, hashes = requests[number]
            self._step_before(arrival_s)
            view = self.cluster.view()
            request = RequestView(number, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes)
            placement = self.policy.place(request, view)
            self.split_tokens[number] = placement.split_tokens
            self.cluster.submit(Request(number, *requests[number]), placement)
            self.check()

    def drain(self) -> list[RequestRecord]:
        self._step_before(inf)
        return sorted(self.records)

    def _step_before(self, time_s: float) -> None:
        clock = self.cluster.clock
        while clock.peek() < time_s:
            clock.step()
            self.check()
        if time_s < inf:
            clock.advance_to(time_s)

    def check(self) -> None:
        cluster = self.cluster
        for node, engine in enumerate(cluster.engines):
            assert 0 <= engine.scheduler.kv.used_tokens <= cluster.topology.kv_capacity_tokens[node]
            assert engine.scheduler.computed_tokens <= engine.scheduler.enqueued_tokens
        for cache, tokens in zip(cluster.transfers.caches, cluster.topology.prefix_cache_tokens, strict=False):
            assert len(cache.blocks) * HASH_BLOCK_TOKENS <= tokens

    def assert_nothing_is_left(self) -> None:
        cluster = self.cluster
        assert not cluster.lifecycle.in_flight
        assert not cluster.transfers._sent_tokens
        assert [engine.scheduler.kv.used_tokens for engine in cluster.engines] == [0] * len(cluster.engines)
        assert all(engine.scheduler.computed_tokens == engine.scheduler.enqueued_tokens for engine in cluster.engines)
        for name in ("queued_prompts", "queued_prompt_tokens", "decode_requests", "decode_prompt_tokens"):
            assert not any(getattr(cluster.lifecycle.counters, name)), name
        assert not any(cluster.lifecycle.counters.deflected_requests)


def assert_sound(workload: Workload, records: list[RequestRecord]) -> None:
    """Check that every request is served once, completely, and in order."""
    assert [r.request for r in records] == list(range(len(workload)))
    assert [r.prompt_tokens for r in records] == workload.prompt_tokens.tolist()
    assert [r.output_tokens for r in records] == workload.output_tokens.tolist()
    for r in records:
        stamps = [r.arrival_s, r.prefill_start_s, r.prefill_end_s, r.kv_ready_s, r.first_token_s, r.last_token_s]
        assert stamps == sorted(stamps)
        assert r.prefill_start_s < r.prefill_end_s
        assert (r.last_token_s > r.first_token_s) == (r.output_tokens > 1)


def without_hashes(workload: Workload) -> Workload:
    return replace(workload, block_hashes=())
