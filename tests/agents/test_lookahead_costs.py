"""Costs of placements that are played forward: what examples contain, and errors of the base policy."""

import numpy as np
import pytest

import policies
from agents.lookahead_costs import Examples, LookaheadArguments, cost_episode
from agents.numpy_policy import NumpyActor
from agents.placement_policy import current_layout
from envs.cluster import ClusterConfig
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import InputError, load_profile
from tests.toy import toy_profile

LATE = Workload.of([0.0, 0.01, 0.02], [1000] * 3, [2] * 3, label="nobody is in time", ttft_slo_s=[5.0, 0.001, 0.001])
ARGUMENTS = LookaheadArguments(decisions=5, fewest=1, most=20)


def learner() -> NumpyActor:
    from agents.placement_network import PlacementNetwork

    network = PlacementNetwork(current_layout("pairs").sizes, hidden=4)
    return NumpyActor({name: weight.numpy(force=True) for name, weight in network.actor.state_dict().items()})


def examples(workload: Workload, base: str, config: ClusterConfig) -> Examples:
    rng = np.random.default_rng(0)
    return cost_episode(workload, config, policies.make(base), learner(), "static", 1, ARGUMENTS, rng)


def test_each_costed_decision_has_a_cheapest_choice_of_cost_0() -> None:
    workload = generate("burst", rate_rps=8.0, requests=40, seed=2**31)
    found = examples(workload, "shortest-ttft", ClusterConfig(load_profile("a100-qwen3-8b")))
    assert {len(array) for array in found.values()} == {5}
    allowed = found["action_mask"] > 0
    assert (np.where(allowed, found["costs"], np.inf).min(axis=1) == 0.0).all()
    assert (found["costs"][~allowed] == 0.0).all()
    assert found["costs"].max() > 0.0


def test_a_base_policy_that_rejects_is_an_error() -> None:
    with pytest.raises(InputError, match="mooncake rejects request 2"):
        examples(LATE, "mooncake:reject=true", ClusterConfig(toy_profile()))
