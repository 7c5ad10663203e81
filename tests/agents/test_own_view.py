"""Trained policies see clusters evenly divided, with slow nodes as prefill nodes, and with measured speeds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.own_view import OwnView, own_prefill_nodes, trained_evenly
from envs.cluster import ClusterConfig, Disturbance, RequestView, RouterView, Topology, evenly_divided, simulate
from envs.generators import generate
from hardware_profiles import InputError, load_profile
from policies import PolicySpec, make
from tests.policies.states import HandMade
from tests.toy import toy_profile

WORKLOAD = generate("burst", rate_rps=12.0, requests=150, seed=3)
SHIPPED_POLICY = "ppo"
CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))
NODES = st.integers(1, 9)


@given(NODES, NODES)
def test_the_division_is_even_and_changes_as_few_roles_as_possible(prefill: int, decode: int) -> None:
    nodes = prefill + decode
    found = evenly_divided(prefill, decode)
    assert sum(found) == nodes
    assert abs(found[0] - found[1]) <= 1
    changed = [abs(first - prefill) for first in range(nodes + 1) if abs(2 * first - nodes) <= 1]
    assert abs(found[0] - prefill) == min(changed)
    assert evenly_divided(*found) == found


@given(NODES, NODES, st.data())
def test_every_live_node_has_one_role(prefill: int, decode: int, data: st.DataObject) -> None:
    nodes = prefill + decode
    speeds = tuple(data.draw(st.lists(st.sampled_from([0.2, 0.6, 1.0]), min_size=nodes, max_size=nodes)))
    topology = Topology(ClusterConfig(toy_profile(), f"{prefill}P{decode}D", node_speeds=speeds))
    for node in data.draw(st.lists(st.integers(0, nodes - 1), unique=True)):
        if len(topology.live_nodes) > 2:
            topology.lose(node)
    chosen = own_prefill_nodes(topology, data.draw(st.floats(0.001, 1.0)))
    count, _ = evenly_divided(len(topology.prefill_nodes), len(topology.decode_nodes))
    assert len(chosen) == count
    assert list(chosen) == sorted(set(chosen))
    known = topology.with_roles(chosen)
    assert sorted(known.prefill_nodes + known.decode_nodes) == list(known.live_nodes) == list(topology.live_nodes)
    assert known.lost == topology.lost
    assert [node for node in known.live_nodes if known.decodes[node]] == list(known.decode_nodes)
    assert known.laws == topology.laws
    assert own_prefill_nodes(known, 1.0) == own_prefill_nodes(topology, 1.0)


def test_a_node_too_slow_for_the_tbt_slo_is_a_prefill_node() -> None:
    topology = Topology(ClusterConfig(CONFIG.profile, node_speeds=(1.0, 1.0, 1.0, 0.6)))
    steps_s = topology.typical_decode_steps_s
    assert steps_s[3] == pytest.approx(steps_s[0] / 0.6)
    limit_s = steps_s[3] / topology.slo_share
    assert own_prefill_nodes(topology, 1.001 * limit_s) == (0, 1)
    assert own_prefill_nodes(topology, 0.999 * limit_s) == (0, 3)
    assert own_prefill_nodes(topology, 0.999 * steps_s[0] / topology.slo_share) == (0, 1)  # all are too slow


@given(st.lists(st.sampled_from([0.3, 0.5, 0.8, 1.0]), min_size=4, max_size=4), st.floats(0.005, 0.2))
def test_decode_nodes_are_no_slower_than_prefill_nodes_where_it_matters(speeds: list[float], tbt_slo_s: float) -> None:
    topology = Topology(ClusterConfig(CONFIG.profile, node_speeds=tuple(speeds)))
    limit_s = topology.slo_share * tbt_slo_s
    slow = [node for node in range(4) if topology.typical_decode_steps_s[node] > limit_s]
    chosen = own_prefill_nodes(topology, tbt_slo_s)
    if len(slow) < 4:
        assert len([node for node in slow if node not in chosen]) == max(0, len(slow) - 2)
    else:
        assert chosen == (0, 1)


def test_the_view_shows_the_same_state() -> None:
    view = HandMade("3P1D")
    request = RequestView(0, 0.0, 100, 2.0, 0.1)
    seen = OwnView(roles=True, speeds=True).of(request, view)
    assert seen.topology.prefill_nodes == (0, 1)
    assert seen.counters is view.counters
    for step in range(3):
        view.at_s = float(step)
        view.hits = [10 * step] * 4
        view.generated = [float(step)] * 4
        assert seen.now_s == view.now_s
        assert [seen.prefix_hit_tokens(request, node) for node in range(4)] == view.hits
        assert [seen.mean_generated_tokens(node) for node in range(4)] == view.generated
        assert [seen.report(node) for node in range(4)] == view.reports


def test_a_view_that_is_no_different_is_left_alone() -> None:
    request = RequestView(0, 0.0, 100, 2.0, 0.1)
    for shape in ("2P2D", "1P2D", "2P1D"):
        view = HandMade(shape)
        assert OwnView(roles=True, speeds=True).of(request, view) is view
        view.speeds = [1.04] * view.topology.nodes  # too little to matter
        assert OwnView(roles=True, speeds=True).of(request, view) is view
    view = HandMade("3P1D")
    view.speeds = [0.5] * 4
    assert OwnView(roles=False, speeds=False).of(request, view) is view


@given(st.lists(st.sampled_from([0.25, 0.8, 1.0, 2.0]), min_size=4, max_size=4), st.sampled_from(["2P2D", "3P1D"]))
def test_the_policy_knows_measured_speeds_as_if_it_had_been_told(speeds: list[float], shape: str) -> None:
    view = HandMade(shape)
    view.speeds = speeds
    request = RequestView(0, 0.0, 100, 2.0, 0.1)
    own = OwnView(roles=False, speeds=True)
    seen = own.of(request, view)
    told = Topology(ClusterConfig(toy_profile(), shape, node_speeds=tuple(speeds)))
    assert seen.topology.speeds == told.speeds
    assert seen.topology.typical_decode_steps_s == told.typical_decode_steps_s
    assert seen.topology.prefill_nodes == told.prefill_nodes
    assert [seen.measured_speed(node) for node in range(4)] == [1.0] * 4
    assert OwnView(roles=False, speeds=True).of(request, seen) is seen
    view.speeds = [1.0] * 4
    assert own.of(request, view) is seen  # until it looks again
    for now_s in (0.6, 0.0):  # later, and in a new run
        view.speeds = speeds if now_s == 0.0 else [1.0] * 4
        view.at_s = now_s
        assert (
            own.of(request, view).topology.speeds
            == Topology(ClusterConfig(toy_profile(), shape, node_speeds=tuple(view.speeds))).speeds
        )


@pytest.mark.parametrize("shape", ["1P3D", "3P1D"])
def test_the_shipped_policy_places_requests_as_on_2p2d(shape: str) -> None:
    for disturbances in ((), (Disturbance(3.0, "loss", 1),)):
        config = replace(CONFIG, disturbances=disturbances)
        even = simulate(WORKLOAD, make(SHIPPED_POLICY), config).records
        uneven = replace(config, shape=shape)
        if not disturbances:
            assert simulate(WORKLOAD, make(SHIPPED_POLICY), uneven).records == even
            assert simulate(WORKLOAD, make(f"{SHIPPED_POLICY}:roles=given"), uneven).records != even
        assert len(simulate(WORKLOAD, make(SHIPPED_POLICY), uneven).records) == len(WORKLOAD)


class Noting:
    """Notes the roles that a policy of even roles sees."""

    name = "noting"

    def __init__(self) -> None:
        self.own = OwnView(roles=True, speeds=True)
        self.seen: list[tuple[int, ...]] = []

    def place(self, request: RequestView, view: RouterView) -> None:
        """Place by default."""
        self.seen.append(self.own.of(request, view).topology.prefill_nodes)


def test_roles_are_divided_again_when_a_node_is_lost() -> None:
    policy = Noting()
    config = replace(CONFIG, shape="1P4D", disturbances=(Disturbance(3.0, "loss", 3),))
    simulate(WORKLOAD, policy, config)
    simulate(WORKLOAD, policy, replace(CONFIG, shape="4P1D"))
    assert list(dict.fromkeys(policy.seen)) == [(0, 1), (0, 1, 2)]
    policy = Noting()
    simulate(WORKLOAD, policy, replace(config, shape="1P4D", disturbances=(Disturbance(3.0, "loss", 1),)))
    assert list(dict.fromkeys(policy.seen)) == [(0, 1), (0, 2)]


def test_only_policies_that_know_even_clusters_alone_divide_nodes() -> None:
    assert trained_evenly({"clusters": ["2P2D", "1P2D"]})
    assert not trained_evenly({"clusters": ["2P2D", "3P1D"]})
    assert not trained_evenly({})


def test_unknown_roles_and_speeds_are_refused() -> None:
    with pytest.raises(InputError, match="roles must be trained or given, not 'even'"):
        PolicySpec.parse(f"{SHIPPED_POLICY}:roles=even").make()
    with pytest.raises(InputError, match="speeds must be measured or given, not 'true'"):
        PolicySpec.parse(f"{SHIPPED_POLICY}:speeds=true").make()


def test_the_shipped_policy_is_better_off_with_measured_speeds_where_the_router_was_told_wrong_ones() -> None:
    slower = replace(CONFIG, disturbances=tuple([Disturbance(0.0, "speed", node, 0.5) for node in (0, 1)]))
    workload = generate("LPLD", rate_rps=80.0, requests=2000, seed=3)
    p95_s = {}
    for speeds in ("measured", "given"):
        records = simulate(workload, make(f"{SHIPPED_POLICY}:speeds={speeds}"), slower).records
        p95_s[speeds] = np.percentile([one.first_token_s - one.arrival_s for one in records], 95)
    assert p95_s["measured"] < 0.9 * p95_s["given"]


def test_a_rule_can_have_the_same_view() -> None:
    name = "agents.own_view:RuleWithOwnView:base=shortest-ttft:alpha=0.9,choices=deflection"
    rule = "shortest-ttft:alpha=0.9,choices=deflection"
    uneven = replace(CONFIG, shape="1P3D")
    assert simulate(WORKLOAD, make(name), uneven).records == simulate(WORKLOAD, make(rule), CONFIG).records
    rejecting = "mooncake:reject=true"
    crowded = generate("burst", rate_rps=40.0, requests=150, seed=3)
    rejected = simulate(crowded, make(f"agents.own_view:RuleWithOwnView:base={rejecting}"), CONFIG).records
    assert repr(rejected) == repr(simulate(crowded, make(rejecting), CONFIG).records)  # nan is not equal to itself
    assert any(one.decode_node < 0 for one in rejected)
    for seed in (1, 2):
        placed = simulate(WORKLOAD, make("agents.own_view:RuleWithOwnView:base=random", seed), CONFIG).records
        assert placed == simulate(WORKLOAD, make("random", seed), CONFIG).records
    with pytest.raises(InputError, match="shortest-tft"):
        make("agents.own_view:RuleWithOwnView:base=shortest-tft")
