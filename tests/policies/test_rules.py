"""Laws of every registered policy, and the behaviour of simple ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.choices import CHOICE_SETS, Choices
from envs.cluster import ClusterConfig, Placement, Policy, RequestRecord, RequestView, RouterView, simulate
from envs.cluster.router_counters import FIELDS
from envs.generators import generate
from envs.workload import Workload
from tests.envs.shared_prefixes import conversations
from tests.policies.states import IDLE, HandMade, asks, decoding, mixed_views, requests, row_of, views
from tests.toy import toy_profile

RULES = policies.names()
ROLELESS = {"colocated", "lmetric", "splitwise", "arrow", "dynaserve"}
"""Rules to which a prefill node may be one that decodes, or a decode node one that prefills for another."""


class Watched:
    """A policy that records its answers.

    Args:
        policy: the policy to ask.
        blindfold: give it a copy of what a router sees instead of the view.
    """

    def __init__(self, policy: Policy, blindfold: bool = False) -> None:
        self.name = policy.name
        self.policy = policy
        self.blindfold = blindfold
        self.placements: list[Placement | None] = []

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        placement = self.policy.place(request, HandMade.of(view, request) if self.blindfold else view)
        self.placements.append(placement)
        return placement


def busy(requests: int = 150, seed: int = 4) -> Workload:
    return generate("burst", rate_rps=16.0, requests=requests, seed=seed)


def played(policy: Policy, workload: Workload, shape: str = "2P2D", **options: object) -> list[RequestRecord]:
    return simulate(workload, policy, ClusterConfig(toy_profile(), shape=shape, **options)).records


def placements(
    policy: Policy, shape: str = "2P2D", workload: Workload | None = None, **options: object
) -> list[Placement | None]:
    watched = Watched(policy)
    played(watched, workload or busy(), shape, **options)
    return watched.placements


@pytest.mark.parametrize("rule", [*RULES, *policies.bounds()])
def test_the_same_seed_gives_the_same_run(rule: str) -> None:
    workload = busy(requests=150 if rule in RULES else 30)
    assert played(policies.make(rule, seed=9), workload) == played(policies.make(rule, seed=9), workload)


@pytest.mark.parametrize("rule", RULES)
def test_instances_share_nothing(rule: str) -> None:
    alone = placements(policies.make(rule, seed=9), workload=busy(60))
    first, other = policies.make(rule, seed=9), policies.make(rule, seed=9)
    view = HandMade("2P2D")
    for _ in range(7):
        other.place(asks(500), view)
    assert placements(first, workload=busy(60)) == alone


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", ["1P1D", "1P3D", "3P1D"])
def test_every_placement_exists_and_decodes_on_a_decode_node(rule: str, shape: str) -> None:
    prefill, nodes = int(shape[0]), int(shape[0]) + int(shape[2])
    for placed in placements(policies.make(rule), shape, busy(60)):
        assert placed is not None
        assert all(0 <= node < nodes for node in placed[:2])
        assert all(chunk >= 1 for chunk in placed.chunk_plan)
        if rule not in ROLELESS:
            assert placed.decode_node >= prefill
            assert placed.prefill_node == placed.decode_node or placed.prefill_node < prefill


# ---- nothing is seen but what a router sees -------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=20)
@given(view=views(), request=requests)
def test_a_policy_needs_only_a_view_made_by_hand(rule: str, view: HandMade, request: RequestView) -> None:
    placed = policies.make(rule).place(request, view)
    assert placed is not None
    assert all(0 <= node < view.topology.nodes for node in placed[:2])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("workload", "options"),
    [(busy(), {"report_age_s": 0.0}), (busy(), {"report_age_s": 0.5}), (conversations(2), {"prefix_cache": True})],
    ids=["fresh", "stale", "prefixes"],
)
def test_a_policy_reads_only_the_public_view(rule: str, workload: Workload, options: dict[str, object]) -> None:
    seeing, blindfolded = (Watched(policies.make(rule, seed=9), blindfold) for blindfold in (False, True))
    for watched in (seeing, blindfolded):
        played(watched, workload, **options)
    assert blindfolded.placements == seeing.placements


class Peeking:
    """Reads the engine instead of its report."""

    name = "peeking"

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        return Placement(min(view.topology.prefill_nodes, key=lambda n: view._engines[n].scheduler.kv.free_tokens), 2)


def test_a_policy_that_reads_the_engine_is_detected() -> None:
    assert placements(Peeking(), workload=busy(20))
    with pytest.raises(AttributeError):
        played(Watched(Peeking(), blindfold=True), busy(20))


@pytest.mark.parametrize("rule", RULES)
def test_later_arrivals_change_no_placement(rule: str) -> None:
    workload = busy()
    assert placements(policies.make(rule, seed=9), workload=workload)[:60] == placements(
        policies.make(rule, seed=9), workload=workload.head(60)
    )


@pytest.mark.parametrize("rule", RULES)
def test_an_output_length_has_no_effect_before_a_request_ends(rule: str) -> None:
    workload = busy()
    changed = workload.output_tokens.copy()
    changed[40:] = 3 * changed[40:] + 100
    longer = Workload.of(workload.arrival_s, workload.prompt_tokens, changed, label="longer outputs")
    seen_s = min(record.last_token_s for record in played(policies.make(rule, seed=9), workload)[40:])
    before = int(np.searchsorted(workload.arrival_s, seen_s))
    assert before >= 45
    first, second = (placements(policies.make(rule, seed=9), workload=w) for w in (workload, longer))
    assert first[:before] == second[:before]


@pytest.mark.parametrize("rule", RULES)
def test_placing_does_not_change_the_view(rule: str) -> None:
    view = HandMade("2P2D", IDLE, IDLE, decoding(8, 4000), IDLE)
    before = {name: repr(getattr(view.counters, name)) for name in FIELDS}
    policies.make(rule).place(asks(1000), view)
    assert {name: repr(getattr(view.counters, name)) for name in FIELDS} == before


def test_random_depends_on_the_seed_and_uses_all_nodes() -> None:
    first, second = placements(policies.make("random", seed=1)), placements(policies.make("random", seed=2))
    assert first != second
    assert {placed.prefill_node for placed in first} == {0, 1}


@pytest.mark.parametrize("shape", ["2P2D", "3P2D"])
def test_round_robin_uses_nodes_in_turn(shape: str) -> None:
    prefill = int(shape[0])
    placed = placements(policies.make("round-robin"), shape)
    assert all((b.prefill_node - a.prefill_node) % prefill == 1 for a, b in pairwise(placed))
    assert all((b.decode_node - a.decode_node) % 2 == 1 for a, b in pairwise(placed))


@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 9), min_size=3, max_size=3), decodes=st.lists(st.integers(0, 9), min_size=2))
def test_static_uses_the_least_prefill_work_and_fewest_decodes(tokens: list[int], decodes: list[int]) -> None:
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
def test_always_local_uses_the_least_loaded_decode_node(
    batches: tuple[int, int], slos_s: tuple[float, float], prompt: int, own_slo_s: float
) -> None:
    nodes = [
        decoding(batch, 300 * batch, slo_s) if batch else IDLE for batch, slo_s in zip(batches, slos_s, strict=True)
    ]
    view = HandMade("1P2D", IDLE, *nodes)
    view.counters.decode_requests[1:] = batches
    request = asks(prompt, tbt_slo_s=own_slo_s)
    placed = policies.make("always-local").place(request, view)
    choices = Choices.of(request, view, "deflection")
    node = view.least_loaded_decode_node()
    assert placed == choices.placement(row_of(choices, node, node))
    assert sum(placed.chunk_plan) == prompt


@pytest.mark.parametrize("choice_set", CHOICE_SETS)
@settings(deadline=None)
@given(view=mixed_views(), request=requests, alpha=st.sampled_from([0.5, 1.0, 2.0]))
def test_shortest_ttft_ignores_roles_if_that_is_sooner_and_safe(
    choice_set: str, view: HandMade, request: RequestView, alpha: float
) -> None:
    placed = policies.make(f"shortest-ttft:alpha={alpha},choices={choice_set}").place(request, view)
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    row = row_of(choices, *placed[:2])
    assert choices.placement(row) == placed
    feasible = choices.feasible_rows()
    assert row in feasible
    soonest_s = min(choices.ttft_s[one] for one in feasible)
    keeping_s = min((choices.ttft_s[one] for one in feasible if choices.keeps_roles(one)), default=float("inf"))
    if choices.keeps_roles(row):
        assert choices.ttft_s[row] == keeping_s
        assert soonest_s == keeping_s or soonest_s > alpha * keeping_s
    else:
        assert choices.ttft_s[row] == soonest_s <= alpha * keeping_s
