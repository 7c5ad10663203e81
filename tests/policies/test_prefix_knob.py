"""The knob `prefix` of every policy that takes cached tokens into account."""

import pytest
from hypothesis import given, settings

import policies
from envs.cluster import ClusterConfig, NodeReport, RequestView, simulate
from envs.cluster.config import StepBudget
from tests.envs.shared_prefixes import conversations
from tests.policies.states import HandMade, asks, behind, changed, decoding, requests, views
from tests.policies.test_rules import Watched
from tests.toy import toy_profile

AWARE = [name for name in policies.names() if "prefix" in policies.knobs(name)]
TO_A_PREFILL_NODE = [
    *("static", "colocated", "lmetric", "dynamo-legacy", "llm-d", "prefix-load", "mooncake", "taichi"),
    *("shortest-ttft", "kairos"),
]
"""Rules that prefer the prefill node with a hit on the states below."""


def unaware(rule: str) -> str:
    return f"{rule}:prefix=false"


def test_these_policies_take_cached_tokens_into_account() -> None:
    assert set(AWARE) == {
        *("static", "static-share", "colocated", "lmetric"),
        *("dynamo-legacy", "dynamo-isl", "dynamo-load", "dynamo-isl-or-load"),
        *("llm-d", "prefix-load", "mooncake", "taichi", "shortest-ttft", "kairos"),
    }
    assert all(policies.knobs(name)["prefix"] is True for name in AWARE)
    assert not any("prefix" in policies.grid(name) for name in AWARE)


@pytest.mark.parametrize("rule", AWARE)
@pytest.mark.parametrize("budget", ["fixed", "slo"])
def test_without_caches_the_knob_has_no_effect(rule: str, budget: StepBudget) -> None:
    aware, blind = (Watched(policies.make(name, seed=3)) for name in (rule, unaware(rule)))
    workload = conversations(5)
    for policy in (aware, blind):
        simulate(workload, policy, ClusterConfig(toy_profile(), shape="2P2D", step_budget=budget))
    assert aware.placements == blind.placements


@pytest.mark.parametrize("rule", AWARE)
@settings(max_examples=20, deadline=None)
@given(view=views(), request=requests)
def test_without_the_knob_hits_change_no_placement(rule: str, view: HandMade, request: RequestView) -> None:
    with_hits = policies.make(unaware(rule)).place(request, view)
    view.hits = [0] * view.topology.nodes
    assert policies.make(unaware(rule)).place(request, view) == with_hits
    assert policies.make(rule).place(request, view) == with_hits


def busy(busy_decodes: NodeReport) -> HandMade:
    """A view of prefill nodes with equal queues, and decode nodes without room."""
    view = HandMade("3P2D", behind(2000), behind(2000), behind(2000), busy_decodes, busy_decodes)
    view.counters.queued_prompts[:] = [2, 2, 2, 60, 60]
    view.counters.queued_prompt_tokens[:] = [2000, 2000, 2000, 90_000, 90_000]
    view.counters.decode_requests[:] = [1, 1, 1, 100, 100]
    view.counters.deflected_requests[3:] = [60, 60]
    return view


@pytest.mark.parametrize("rule", TO_A_PREFILL_NODE)
@pytest.mark.parametrize("node", [0, 1, 2])
def test_of_equal_queues_the_one_with_a_long_hit_is_used(rule: str, node: int) -> None:
    residents = changed(decoding(100, 100_000, 0.012), kv_used_tokens=10**7, prefill_tokens_ahead=90_000)
    view = busy(residents)
    request = asks(8000, ttft_slo_s=0.001)
    knobs = ":max_queue=9" if rule == "dynamo-legacy" else ""
    assert policies.make(rule + knobs).place(request, view).prefill_node == 0
    view.hits[node] = 7680
    assert policies.make(rule + knobs).place(request, view).prefill_node == node
    comma = "," if knobs else ":"
    assert policies.make(f"{rule}{knobs}{comma}prefix=false").place(request, view).prefill_node == 0


def test_a_hit_on_a_decode_node_is_a_reason_to_deflect_to_it() -> None:
    for rule in ("shortest-ttft", "kairos", "taichi:short=10"):
        view = HandMade("1P3D")
        view.hits[2] = 7680
        placed = policies.make(rule).place(asks(8000), view)
        assert placed.prefill_node == placed.decode_node == 2, rule


@pytest.mark.parametrize("rule", AWARE)
def test_with_caches_all_requests_are_served_for_both_values(rule: str) -> None:
    workload = conversations(5)
    for name in (rule, unaware(rule)):
        config = ClusterConfig(toy_profile(), shape="2P2D", prefix_cache=True, step_budget="fixed")
        result = simulate(workload, policies.make(name), config)
        assert all(record.last_token_s > 0.0 for record in result.records)
        assert result.counters.prefix_hit_tokens > 0
