"""Policy files as placement policies."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.placement_network import PlacementNetwork
from agents.placement_policy import LearnedPolicy, current_layout
from agents.policy_file import save_policy
from envs import observation
from envs.choices import Choices, ChoiceSet
from envs.cluster import ClusterConfig, Disturbance, Placement, RequestView, RouterView, simulate
from envs.generators import generate
from hardware_profiles import InputError, load_profile
from tests.agents.observations import LAYOUT, make_network

WORKLOAD = generate("burst", rate_rps=20.0, requests=80, seed=3)
CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"), "2P2D")


def shortest_predicted_ttft(path: Path, choice_set: ChoiceSet = "pairs") -> Path:
    """A policy file of an untrained network whose skip connection selects the least predicted TTFT."""
    layout = current_layout(choice_set)
    network = PlacementNetwork(layout.sizes, 8, {observation.PREDICTED_TTFT_COLUMN: -1e5})
    save_policy(path, network, layout, {})
    return path


@pytest.mark.parametrize("choice_set", ["pairs", "deflection"])
def test_it_uses_the_choice_with_the_highest_score(tmp_path: Path, choice_set: ChoiceSet) -> None:
    policy = LearnedPolicy(shortest_predicted_ttft(tmp_path / "shortest.npz", choice_set))
    assert policy.name == "shortest"

    class Watched:
        name = "watched"
        placed: list[Placement]

        def place(self, request: RequestView, view: RouterView) -> Placement:
            choices = Choices.of(request, view, choice_set)
            placement = policy.place(request, view)
            placements = [choices.placement(row) for row in range(len(choices))]
            ttft_s = choices.ttft_s[placements.index(placement)]
            # Equal up to the float32 precision of the observation.
            assert ttft_s == pytest.approx(choices.ttft_s[choices.soonest()], rel=1e-4)
            return placement

    records = simulate(WORKLOAD, Watched(), CONFIG).records
    assert len(records) == len(WORKLOAD)
    assert not any(np.isnan(record.last_token_s) for record in records)
    if choice_set == "deflection":
        assert 0 < sum(record.deflected for record in records) < len(records)


def test_the_same_file_serves_clusters_of_other_sizes(tmp_path: Path) -> None:
    policy = LearnedPolicy(shortest_predicted_ttft(tmp_path / "policy.npz"))
    for shape in ("1P3D", "3P5D"):
        result = simulate(WORKLOAD, policy, ClusterConfig(load_profile("a100-qwen3-8b"), shape))
        assert len({record.prefill_node for record in result.records}) > 1


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_it_places_no_request_on_a_lost_node(tmp_path: Path, lost: int) -> None:
    policy = LearnedPolicy(shortest_predicted_ttft(tmp_path / "policy.npz"))
    config = replace(CONFIG, disturbances=(Disturbance(1.0, "loss", lost),))
    records = simulate(WORKLOAD, policy, config).records
    late = [record for record in records if record.arrival_s >= 1.0]
    assert len(late) > 20
    assert not any(lost in (record.prefill_node, record.decode_node) for record in late)
    assert not any(np.isnan(record.last_token_s) for record in records)


def test_a_file_for_other_observations_is_an_error(tmp_path: Path) -> None:
    path, layout = tmp_path / "old.npz", current_layout("pairs")
    network = PlacementNetwork(layout.sizes, 8)
    for other in (layout._replace(version=layout.version - 1), layout._replace(choices=layout.choices[::-1])):
        save_policy(path, network, other, {})
        with pytest.raises(InputError, match=r"old\.npz.*layout"):
            LearnedPolicy(path)
    save_policy(path, make_network(0), LAYOUT, {})
    with pytest.raises(InputError, match=r"old\.npz"):
        LearnedPolicy(path)


def test_using_a_trained_policy_does_not_need_torch() -> None:
    code = "import sys, agents.placement_policy; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
