"""What each registered rule does, and what holds of all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.actions import placement_for
from envs.candidates import candidates
from envs.cluster import ClusterConfig, ClusterView, Placement, Policy, RequestView, simulate
from envs.generators import generate
from tests.policies.states import IDLE, HandMade, asks, decoding, requests, views
from tests.toy import toy_profile

RULES = policies.names()


class Watched:
    """A policy that keeps what it was asked and what it answered."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self.policy = policy
        self.placements: list[Placement] = []

    def place(self, request: RequestView, view: ClusterView) -> Placement:
        placement = self.policy.place(request, view)
        self.placements.append(placement)
        return placement


def placements(policy: Policy, shape: str = "2P2D", requests: int = 150, seed: int = 4) -> list[Placement]:
    workload = generate("burst", rate_rps=16.0, requests=requests, seed=seed)
    watched = Watched(policy)
    simulate(workload, watched, ClusterConfig(toy_profile(), shape=shape))
    return watched.placements


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_placements(rule: str) -> None:
    assert placements(policies.make(rule, seed=9)) == placements(policies.make(rule, seed=9))


@pytest.mark.parametrize("rule", RULES)
def test_instances_share_nothing(rule: str) -> None:
    alone = placements(policies.make(rule, seed=9), requests=60)
    first, other = policies.make(rule, seed=9), policies.make(rule, seed=9)
    view = HandMade("2P2D")
    for _ in range(7):
        other.place(asks(500), view)
    assert placements(first, requests=60) == alone


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", ["1P1D", "1P3D", "3P1D"])
def test_every_placement_exists_and_decodes_on_a_decode_node(rule: str, shape: str) -> None:
    prefill = int(shape[0])
    for placed in placements(policies.make(rule), shape, requests=60):
        assert prefill <= placed.decode_node < 4
        assert placed.prefill_node == placed.decode_node or 0 <= placed.prefill_node < prefill
        assert all(chunk >= 1 for chunk in placed.chunk_plan)


@pytest.mark.parametrize("rule", RULES)
def test_placing_changes_nothing_that_a_view_shows(rule: str) -> None:
    view = HandMade("2P2D", IDLE, IDLE, decoding(8, 4000), IDLE)
    before = {name: repr(getattr(view.counters, name)) for name in view.counters.__slots__}
    policies.make(rule).place(asks(1000), view)
    assert {name: repr(getattr(view.counters, name)) for name in view.counters.__slots__} == before


def test_random_draws_other_nodes_under_another_seed_and_uses_all() -> None:
    first, second = placements(policies.make("random", seed=1)), placements(policies.make("random", seed=2))
    assert first != second
    assert {placed.prefill_node for placed in first} == {0, 1}


@pytest.mark.parametrize("shape", ["2P2D", "3P2D"])
def test_round_robin_takes_nodes_in_turn(shape: str) -> None:
    prefill = int(shape[0])
    placed = placements(policies.make("round-robin"), shape)
    assert all((b.prefill_node - a.prefill_node) % prefill == 1 for a, b in pairwise(placed))
    assert all((b.decode_node - a.decode_node) % 2 == 1 for a, b in pairwise(placed))


@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 9), min_size=3, max_size=3), decodes=st.lists(st.integers(0, 9), min_size=2))
def test_static_takes_the_least_pending_prefill_work_and_the_fewest_decodes(
    tokens: list[int], decodes: list[int]
) -> None:
    view = HandMade("3P2D")
    view.counters.queued_prompt_tokens[:3] = tokens
    view.counters.decode_requests[3:] = decodes[:2]
    placed = policies.make("static").place(asks(1000), view)
    assert placed == Placement(int(np.argmin(tokens)), 3 + int(np.argmin(decodes[:2])))


@settings(deadline=None)
@given(
    batches=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    slos_s=st.tuples(st.floats(0.01, 0.2), st.floats(0.01, 0.2)),
    prompt=st.integers(1, 20_000),
    own_slo_s=st.floats(0.01, 0.2),
)
def test_always_local_is_the_environments_action_for_the_least_loaded_decode_node(
    batches: tuple[int, int], slos_s: tuple[float, float], prompt: int, own_slo_s: float
) -> None:
    nodes = [
        decoding(batch, 300 * batch, slo_s) if batch else IDLE for batch, slo_s in zip(batches, slos_s, strict=True)
    ]
    view = HandMade("1P2D", IDLE, *nodes)
    view.counters.decode_requests[1:] = batches
    request = asks(prompt, tbt_slo_s=own_slo_s)
    placed = policies.make("always-local").place(request, view)
    assert placed == placement_for(view.least_loaded_decode_node(), request, view)
    assert sum(placed.chunk_plan) == prompt


@settings(deadline=None)
@given(view=views(), request=requests, alpha=st.sampled_from([0.5, 1.0, 2.0]))
def test_shortest_ttft_deflects_where_that_is_predicted_to_be_sooner_and_safe(
    view: HandMade, request: RequestView, alpha: float
) -> None:
    placed = policies.make(f"shortest-ttft:alpha={alpha}").place(request, view)
    found = candidates(request, view)
    prefill = len(view.topology.prefill_nodes)
    best_s = min(c.ttft_s for c in found[:prefill])
    deflections_s = [c.ttft_s for c in found[prefill:] if c.feasible]
    (chosen,) = [c for c in found if c.placement == placed]
    assert chosen.feasible
    if placed.prefill_node >= prefill:
        assert chosen.ttft_s == min(deflections_s) <= alpha * best_s
    else:
        assert chosen.ttft_s == best_s
        assert min(deflections_s, default=float("inf")) > alpha * best_s
