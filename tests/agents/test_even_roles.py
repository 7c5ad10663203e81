"""Policies that were trained on evenly divided nodes see every cluster like that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.even_roles import EvenRoles, trained_evenly
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
    topology = Topology(ClusterConfig(toy_profile(), f"{prefill}P{decode}D"))
    for node in data.draw(st.lists(st.integers(0, prefill + decode - 1), unique=True)):
        if len(topology.live_nodes) > 2:
            topology.lose(node)
    divided = topology.evenly_divided()
    assert divided.live_nodes == topology.live_nodes == divided.prefill_nodes + divided.decode_nodes
    assert divided.lost == topology.lost
    if topology.prefill_nodes and topology.decode_nodes:
        assert all(node < divided.first_decode_node for node in divided.prefill_nodes)
        assert all(node >= divided.first_decode_node for node in divided.decode_nodes)
        assert divided.evenly_divided() is divided
        given_roles = len(topology.prefill_nodes), len(topology.decode_nodes)
        assert (divided is topology) == (evenly_divided(*given_roles) == given_roles)


def test_other_roles_show_the_same_state() -> None:
    view = HandMade("3P1D")
    seen = EvenRoles().of(view)
    assert seen.topology.prefill_nodes == (0, 1)
    assert seen.counters is view.counters
    request = RequestView(0, 0.0, 100, 2.0, 0.1)
    for step in range(3):
        view.at_s = float(step)
        view.hits = [10 * step] * 4
        view.generated = [float(step)] * 4
        assert seen.now_s == view.now_s
        assert [seen.prefix_hit_tokens(request, node) for node in range(4)] == view.hits
        assert [seen.mean_generated_tokens(node) for node in range(4)] == view.generated
        assert [seen.report(node) for node in range(4)] == view.reports


def test_a_view_with_even_roles_is_left_alone() -> None:
    for shape in ("2P2D", "1P2D", "2P1D"):
        view = HandMade(shape)
        assert EvenRoles().of(view) is view


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
        self.roles = EvenRoles()
        self.seen: list[tuple[int, ...]] = []

    def place(self, request: RequestView, view: RouterView) -> None:  # noqa: ARG002
        """Place by default."""
        self.seen.append(self.roles.of(view).topology.prefill_nodes)


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


def test_unknown_roles_are_refused() -> None:
    with pytest.raises(InputError, match="roles must be trained or given, not 'even'"):
        PolicySpec.parse(f"{SHIPPED_POLICY}:roles=even").make()
