"""What must hold of every run, whatever the rule and the load."""

import gc
from contextlib import nullcontext
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import (
    Cluster,
    ClusterConfig,
    RouterView,
    Placement,
    Policy,
    RequestRecord,
    RequestView,
    RunResult,
    Request,
    simulate,
)
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import InputError
from tests.toy import enough_kv, toy_profile

RULES = policies.names()


class Noted:
    """A policy, and where it splits prompts."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self.policy = policy
        self.split_tokens: dict[int, int] = {}

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        placement = self.policy.place(request, view)
        self.split_tokens[request.number] = placement.split_tokens if placement else 0
        return placement


def run(rule: str, *, seed: int = 3, rate_rps: float = 14.0, requests: int = 400, **config: object) -> RunResult:
    workload = generate("burst", rate_rps=rate_rps, requests=requests, seed=seed)
    return simulate(workload, policies.make(rule, seed=7), ClusterConfig(toy_profile(), **config))


@pytest.mark.parametrize("rule", RULES)
def test_conservation_every_request_that_arrives_finishes_once(rule: str) -> None:
    workload = generate("burst", rate_rps=20.0, requests=400, seed=1)
    result = simulate(workload, policies.make(rule), ClusterConfig(toy_profile()))
    assert [record.request for record in result.records] == list(range(400))
    assert [record.prompt_tokens for record in result.records] == workload.prompt_tokens.tolist()
    assert [record.output_tokens for record in result.records] == workload.output_tokens.tolist()
    assert all(isfinite(record.last_token_s) for record in result.records)
    # Every token but a request's first closes exactly one gap.
    gaps = result.gaps
    assert int((gaps.steps * gaps.weight).sum()) == int((workload.output_tokens - 1).sum())


@pytest.mark.parametrize("rule", RULES)
def test_causality_stamps_come_in_order(rule: str) -> None:
    for r in run(rule).records:
        stamps = [r.arrival_s, r.prefill_start_s, r.prefill_end_s, r.kv_ready_s, r.first_token_s, r.last_token_s]
        assert stamps == sorted(stamps)
        assert r.prefill_start_s < r.prefill_end_s
        assert (r.last_token_s > r.first_token_s) == (r.output_tokens > 1)


@pytest.mark.parametrize("rule", RULES)
def test_deflected_means_no_transfer_and_the_others_pay_one(rule: str) -> None:
    policy = Noted(policies.make(rule, seed=7))
    workload = generate("burst", rate_rps=14.0, requests=400, seed=3)
    result = simulate(workload, policy, ClusterConfig(toy_profile()))
    profile = toy_profile()
    moved = 0
    for r in result.records:
        assert r.deflected == (r.prefill_node == r.decode_node)
        if r.deflected:
            assert r.prefill_end_s == r.kv_ready_s == r.first_token_s
        else:
            sent_tokens = policy.split_tokens[r.request] or r.prompt_tokens
            kv_bytes = -(-sent_tokens // 16) * 16 * profile.kv_bytes_per_token
            moved += kv_bytes
            alone_s = profile.inter_node.latency_s + kv_bytes / profile.inter_node.bandwidth_bytes_per_s
            assert r.kv_ready_s - r.prefill_end_s >= alone_s * (1 - 1e-12)
    assert result.counters.kv_bytes_moved == moved


@pytest.mark.parametrize("rule", RULES)
def test_two_runs_are_equal_to_the_byte(rule: str) -> None:
    first, second = run(rule), run(rule)
    assert repr(first.records) == repr(second.records)
    assert first.gaps.columns().tobytes() == second.gaps.columns().tobytes()
    assert first.counters == second.counters


def test_requests_are_equal_under_two_rules() -> None:
    def asked(result: RunResult) -> list[tuple[float, int, int]]:
        return [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in result.records]

    assert asked(run("static")) == asked(run("kairos"))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    capacity=st.sampled_from([6_201, 8_000, 30_000]),
    rule=st.sampled_from(RULES),
    max_seqs=st.sampled_from([2, 256]),
)
def test_kv_is_never_over_capacity_and_nobody_starves(seed: int, capacity: int, rule: str, max_seqs: int) -> None:
    capacity = enough_kv(capacity, rule)
    rng = np.random.default_rng(seed)
    workload = Workload.of(
        np.cumsum(rng.exponential(0.02, 60)), rng.integers(1, 6000, 60), rng.choice([1, 2, 50, 200], 60), label="tight"
    )
    records: list[RequestRecord] = []
    cluster = Cluster(ClusterConfig(toy_profile(capacity), max_seqs=max_seqs), records.append)
    policy = policies.make(rule)
    arrivals = list(
        zip(workload.arrival_s.tolist(), workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    )

    def check() -> None:
        for engine in cluster.engines:
            assert 0 <= engine.kv_used_tokens <= capacity

    for number, (arrival_s, prompt_tokens, output_tokens) in enumerate(arrivals):
        while cluster.clock.peek() < arrival_s:
            cluster.clock.step()
            check()
        cluster.clock.advance_to(arrival_s)
        placement = policy.place(RequestView(number, arrival_s, prompt_tokens, 2.0, 0.1), cluster.view())
        cluster.submit(Request(number, arrival_s, prompt_tokens, output_tokens, 2.0, 0.1), placement)
        check()
    while cluster.clock.peek() < float("inf"):
        cluster.clock.step()
        check()
    assert len(records) == 60
    assert not cluster.lifecycle.in_flight
    assert [engine.kv_used_tokens for engine in cluster.engines] == [0] * 4
    counters = cluster.lifecycle.counters
    for counts in (
        counters.queued_prompts,
        counters.queued_prompt_tokens,
        counters.decode_requests,
        counters.decode_prompt_tokens,
        counters.deflected_requests,
    ):
        assert counts == [0] * 4


def test_preemption_is_counted_where_kv_runs_out() -> None:
    workload = Workload.of([0.0] * 12, [500] * 12, [400] * 12, label="twelve at once")
    tight = simulate(workload, policies.make("static"), ClusterConfig(toy_profile(4_000), shape="1P1D"))
    roomy = simulate(workload, policies.make("static"), ClusterConfig(toy_profile(), shape="1P1D"))
    assert tight.counters.preemptions == sum(r.preemptions for r in tight.records) > 0
    assert roomy.counters.preemptions == 0
    assert tight.end_s > roomy.end_s


def test_more_load_is_never_faster_on_average() -> None:
    def ttft_s(rate_rps: float) -> float:
        return float(np.mean([r.first_token_s - r.arrival_s for r in run("static", rate_rps=rate_rps).records]))

    ttfts = [ttft_s(rate) for rate in (2.0, 8.0, 16.0, 32.0)]
    assert ttfts == sorted(ttfts)


def test_nvlink_is_no_slower_than_the_nics() -> None:
    apart = run("static").records
    together = run("static", hosts=(0, 0, 0, 0)).records
    assert np.mean([r.kv_ready_s for r in together]) < np.mean([r.kv_ready_s for r in apart])


def test_a_capped_drain_keeps_who_did_not_finish() -> None:
    workload = generate("burst", rate_rps=40.0, requests=300, seed=5)
    result = simulate(workload, policies.make("static"), ClusterConfig(toy_profile()), drain_s=0.5)
    assert len(result.records) == 300
    assert any(not isfinite(r.first_token_s) for r in result.records)
    assert result.end_s == pytest.approx(workload.arrival_s[-1] + 0.5)


def test_a_request_that_can_never_fit_is_refused_by_name() -> None:
    workload = Workload.of([0.0], [5_000], [10], label="too long")
    with pytest.raises(InputError, match=r"request 0: 5000 prompt and 10 output tokens do not fit .* 4000"):
        simulate(workload, policies.make("static"), ClusterConfig(toy_profile(4_000)))


@pytest.mark.parametrize("placement", [Placement(4, 2), Placement(0, -1), Placement(2, 2, (0,))])
def test_a_placement_that_does_not_exist_is_refused(placement: Placement) -> None:
    cluster = Cluster(ClusterConfig(toy_profile()), lambda _: None)
    with pytest.raises(InputError, match="Placement"):
        cluster.submit(Request(0, 0.0, 10, 10, 2.0, 0.1), placement)
    assert not cluster.lifecycle.in_flight


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"shape": "2P"}, "NPMD"),
        ({"shape": "0P2D"}, "NPMD"),
        ({"hosts": (0, 0)}, "hosts names 2 nodes"),
        ({"report_age_s": -0.1}, "report age"),
        ({"max_seqs": 0}, "at least 1"),
        ({"token_budget": 256}, "larger than max_seqs"),
        ({"token_budget": 100_000}, "beyond the"),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(config: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ClusterConfig(toy_profile(), **config)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompt_tokens", [100, 10**9])
def test_a_run_leaves_garbage_collection_as_it_was_also_when_it_fails(prompt_tokens: int) -> None:
    usual = gc.get_threshold()
    workload = Workload.of([0.0], [prompt_tokens], [3], label="one")
    fits = prompt_tokens < 1000
    with nullcontext() if fits else pytest.raises(InputError):
        simulate(workload, policies.make("static"), ClusterConfig(toy_profile()))
    assert gc.isenabled()
    assert gc.get_threshold() == usual


def test_nodes_that_wait_for_each_others_kv_are_told_as_unfinished() -> None:
    class Crossing:
        name = "crossing"

        def place(self, request: RequestView, _view: RouterView) -> Placement:
            return Placement(2, 3) if request.number == 0 else Placement(3, 2)

    workload = Workload.of([0.0, 0.0], [5_000, 5_000], [10, 10], label="crossing")
    fits = simulate(workload, Crossing(), ClusterConfig(toy_profile(11_000)))
    assert all(isfinite(record.last_token_s) for record in fits.records)
    stuck = simulate(workload, Crossing(), ClusterConfig(toy_profile(9_000)))
    assert [record.request for record in stuck.records] == [0, 1]
    assert all(isfinite(r.prefill_end_s) and not isfinite(r.first_token_s) for r in stuck.records)
