"""A prompt split over two nodes: closed form, conservation in random runs, and copies during a split.

test_coalescing.py compares splits with the step-by-step reference.
"""

from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.cluster import (
    Cluster,
    ClusterConfig,
    Disturbance,
    Placement,
    Request,
    RequestRecord,
    RequestView,
    RouterView,
    simulate,
)
from envs.cluster.config import StepBudget
from envs.workload import Workload
from hardware_profiles import InputError
from tests.envs.shared_prefixes import conversations
from tests.toy import TOY_LAW, toy_profile


class Splits:
    """Splits some prompts at random, deflects some, and prefills the rest on prefill nodes."""

    name = "splits"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def place(self, request: RequestView, view: RouterView) -> Placement:
        rng = self.rng
        prefill = int(rng.choice(view.topology.prefill_nodes))
        decode = int(rng.choice(view.topology.decode_nodes))
        draw = rng.random()
        planned = view.topology.step_budget == "fixed"
        if draw < 0.2:
            return Placement(decode, decode, (512,) if planned else ())
        if draw < 0.8 and request.prompt_tokens > 1:
            split = int(rng.integers(1, request.prompt_tokens))
            plan = ((), (256,), (1024, 128))[rng.integers(3)]
            return Placement(prefill, decode, plan if planned else (), split)
        return Placement(prefill, decode)


@pytest.mark.parametrize(
    ("step_budget", "plan", "rest"),
    [("fixed", (512, 488), [(512, 2000), (488, 2512)]), ("fixed", (), [(1000, 2000)]), ("slo", (), [(1000, 2000)])],
)
def test_alone_ttft_is_the_sum_of_both_parts_and_the_transfer(
    step_budget: StepBudget, plan: tuple[int, ...], rest: list[tuple[int, int]]
) -> None:
    workload = Workload.of([0.0], [3000], [2], label="one")

    class One:
        name = "one"

        def place(self, _request: RequestView, _view: RouterView) -> Placement:
            return Placement(0, 1, plan, 2000)

    config = ClusterConfig(toy_profile(), shape="1P1D", step_budget=step_budget)
    result = simulate(workload, One(), config)
    record = result.records[0]
    link = config.profile.inter_node
    kv_bytes = 2000 * config.profile.kv_bytes_per_token
    assert record.prefill_end_s == pytest.approx(TOY_LAW.time_s([(2000, 0)], 0, 0))
    assert record.kv_ready_s - record.prefill_end_s == pytest.approx(
        link.latency_s + kv_bytes / link.bandwidth_bytes_per_s
    )
    rest_s = sum(TOY_LAW.time_s([chunk], 0, 0) for chunk in rest)
    assert record.first_token_s - record.kv_ready_s == pytest.approx(rest_s)
    assert result.counters.kv_bytes_moved == kv_bytes
    assert not record.deflected


@pytest.mark.parametrize("split", [-1, 1000, 1001])
def test_a_split_needs_a_token_for_each_node(split: int) -> None:
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    with pytest.raises(InputError, match="a token for each"):
        cluster.submit(Request(0, 0.0, 1000, 5, 2.0, 0.1), Placement(0, 2, (), split))


def test_a_split_needs_two_nodes() -> None:
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    with pytest.raises(InputError, match="two nodes"):
        cluster.submit(Request(0, 0.0, 1000, 5, 2.0, 0.1), Placement(2, 2, (), 500))


@pytest.mark.parametrize(
    ("shape", "config", "placements"),
    [
        # Its prefill node is lost, and the whole prompt is placed again.
        ("2P1D", {"disturbances": (Disturbance(0.01, "loss", 0),)}, [Placement(0, 2, (), 1000)]),
        # Its KV gets no room in time, and its decode node computes the whole prompt.
        ("1P1D", {"kv_hold_s": 0.1}, [Placement(1, 1), Placement(0, 1, (), 1000)]),
    ],
)
def test_a_cancelled_split_leaves_no_tokens_ahead(
    shape: str, config: dict[str, object], placements: list[Placement]
) -> None:
    records: list[RequestRecord] = []
    cluster = Cluster(ClusterConfig(toy_profile(7_000), shape=shape, **config), records.append)
    for number, placement in enumerate(placements):
        prompt_tokens, output_tokens = (3000, 2) if placement.split_tokens else (5000, 300)
        cluster.submit(Request(number, 0.0, prompt_tokens, output_tokens, 2.0, 0.1), placement)
    cluster.clock.drain(float("inf"))
    assert len(records) == len(placements)
    assert cluster.lifecycle.displaced + cluster.lifecycle.kv_expired == 1
    for engine in cluster.engines:
        assert engine.scheduler.enqueued_tokens == engine.scheduler.computed_tokens


options = st.fixed_dictionaries(
    {
        "capacity": st.sampled_from([9_000, 30_000, 400_000]),
        "kv_streaming": st.booleans(),
        "prefix_cache": st.booleans(),
        "lost_at_s": st.sampled_from([None, 0.3, 1.0]),
        "lost": st.integers(0, 3),
        "max_seqs": st.sampled_from([4, 256]),
        "step_budget": st.sampled_from(["slo", "fixed"]),
    }
)


def cluster_of(options: dict, records: list[RequestRecord], policy: Splits) -> Cluster:
    lost = options["lost_at_s"]
    config = ClusterConfig(
        toy_profile(options["capacity"] * 2),
        max_seqs=options["max_seqs"],
        step_budget=options["step_budget"],
        kv_streaming=options["kv_streaming"],
        prefix_cache=options["prefix_cache"],
        prefix_cache_share=0.5,
        disturbances=() if lost is None else (Disturbance(lost, "loss", options["lost"]),),
    )
    cluster = Cluster(
        config,
        records.append,
        lambda seq: policy.place(RequestView(seq.index, 0.0, seq.prompt_tokens, 2.0, 0.1), cluster.view()),
    )
    return cluster


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), options=options)
def test_all_requests_finish_and_nothing_is_left(seed: int, options: dict) -> None:
    workload = conversations(seed, requests=40, longest=4_000)
    records: list[RequestRecord] = []
    policy = Splits(seed)
    cluster = cluster_of(options, records, policy)
    for number, row in enumerate(workload.rows()):
        cluster.clock.advance_to(row[0])
        request = RequestView(number, row[0], row[1], row[3], row[4], row[5])
        cluster.submit(Request(number, *row), policy.place(request, cluster.view()))
    cluster.clock.drain(float("inf"))
    assert sorted(record.request for record in records) == list(range(40))
    assert all(isfinite(record.last_token_s) for record in records)
    assert all(r.prefill_end_s <= r.kv_ready_s <= r.first_token_s <= r.last_token_s for r in records)
    counters = cluster.lifecycle.counters
    for name in ("queued_prompts", "queued_prompt_tokens", "deflected_requests", "decode_requests"):
        assert getattr(counters, name) == [0, 0, 0, 0], name
    for engine in cluster.engines:
        assert engine.scheduler.kv.used_tokens == 0
        assert engine.scheduler.enqueued_tokens == engine.scheduler.computed_tokens
    assert not cluster.lifecycle.in_flight


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    cut=st.integers(0, 39),
    streaming=st.booleans(),
    step_budget=st.sampled_from(["slo", "fixed"]),
)
def test_a_copy_continues_like_the_original(seed: int, cut: int, streaming: bool, step_budget: StepBudget) -> None:
    rows = conversations(seed, requests=40, longest=4_000).rows()
    options = {
        "capacity": 400_000,
        "kv_streaming": streaming,
        "prefix_cache": True,
        "lost_at_s": None,
        "max_seqs": 256,
        "step_budget": step_budget,
    }
    placer = Splits(seed)
    cluster = cluster_of(options, [], placer)
    placements = [placer.place(RequestView(i, *row[:2], 2.0, 0.1), cluster.view()) for i, row in enumerate(rows)]

    def play(cluster: Cluster, first: int) -> None:
        for number in range(first, 40):
            cluster.clock.advance_to(rows[number][0])
            cluster.submit(Request(number, *rows[number]), placements[number])
        cluster.clock.drain(float("inf"))

    records: list[RequestRecord] = []
    cluster = cluster_of(options, records, placer)
    for number in range(cut):
        cluster.clock.advance_to(rows[number][0])
        cluster.submit(Request(number, *rows[number]), placements[number])
    copied = list(records)
    twin = cluster.copy(copied.append)
    play(twin, cut)
    play(cluster, cut)
    assert repr(copied) == repr(records)
