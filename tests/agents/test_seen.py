"""Ranges of features in training: constant features have no effect, and unlike inputs are handed over."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from agents.placement_network import PlacementNetwork
from agents.placement_policy import FALLBACK, LearnedPolicy, current_layout
from agents.policy_file import load_policy, save_policy
from agents.seen import TOLERANCE, SeenRange, fold_constants
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from hardware_profiles import InputError, load_profile
from tests.agents.observations import as_tensors, make_network, make_observation, seeds


@settings(max_examples=25)
@given(seeds, st.lists(st.integers(0, 3), max_size=3, unique=True), st.floats(0, 1, width=32))
def test_folding_changes_no_score_and_removes_the_effect_of_constant_features(
    seed: int, columns: list[int], value: float
) -> None:
    network, observation = make_network(seed), make_observation(seed, choices=5, batch=20)
    present = (observation["action_mask"] > 0) | observation["choices"].any(axis=2)
    for column in columns:
        observation["choices"][:, :, column] = np.where(present, np.float32(value), 0.0)
    with torch.no_grad():
        before = network.forward_actor(as_tensors(observation))
        fold_constants(network, SeenRange.of(observation))
        after = network.forward_actor(as_tensors(observation))
        centred = [one - one.max(dim=1, keepdim=True).values for one in (before, after)]
        torch.testing.assert_close(centred[0], centred[1], atol=1e-4, rtol=1e-4)
        for column in columns:
            observation["choices"][:, :, column] = np.where(present, np.float32(0.5), 0.0)
        varied = network.forward_actor(as_tensors(observation))
        if value > 0.0:  # a row of zeros is padding, which a feature can turn into a choice
            torch.testing.assert_close(varied, after)


def test_inputs_beyond_the_tolerance_are_outside() -> None:
    observation = make_observation(seed=0, choices=3, batch=50)
    seen = SeenRange.of(observation)
    single = {name: array[0] for name, array in observation.items()}
    assert seen.has(single)
    for step, inside in ((0.9 * TOLERANCE, True), (1.1 * TOLERANCE, False)):
        single["global"] = observation["global"][0].copy()
        single["global"][0] = seen.high[observation["request"].shape[1]] + step
        assert seen.has(single) is inside


def test_features_may_be_left_out() -> None:
    observation = make_observation(seed=0, choices=3, batch=50)
    at = observation["request"].shape[1]
    single = {name: array[0] for name, array in observation.items()}
    single["global"] = np.array([2.0 * TOLERANCE + observation["global"][:, 0].max(), *single["global"][1:]])
    seen = SeenRange.of(observation)
    high = seen.high.copy()
    high[at] = single["global"][0] - 2.0 * TOLERANCE
    seen = SeenRange(seen.low, high)
    assert not seen.has(single)
    assert seen.without([at]).has(single) == (single["global"][0] <= 1.0 + TOLERANCE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    layout = current_layout("pairs")
    torch.manual_seed(0)
    size = sum(layout.sizes)
    nothing = SeenRange(np.full(size, 2.0, np.float32), np.full(size, 3.0, np.float32))
    path = tmp_path / "policy.npz"
    save_policy(path, PlacementNetwork(layout.sizes, hidden=4), layout, {}, nothing)
    return path


def test_a_policy_hands_over_what_is_unlike_its_training(file: Path) -> None:
    workload, config = (
        generate("burst", rate_rps=8.0, requests=60, seed=1),
        ClusterConfig(load_profile("a100-qwen3-8b")),
    )
    guarded = LearnedPolicy(file)
    assert simulate(workload, guarded, config).records == simulate(workload, FALLBACK, config).records
    assert guarded.handed_over == guarded.decisions == 60
    unguarded = policies.make(f"{file}")
    free = LearnedPolicy(file, guard=False)
    assert simulate(workload, free, config).records != simulate(workload, unguarded, config).records
    assert (free.handed_over, free.decisions) == (0, 60)


def test_a_damaged_range_is_refused(file: Path) -> None:
    found = load_policy(file)
    assert found.seen is not None
    short = SeenRange(found.seen.low[:3], found.seen.high)
    layout = current_layout("pairs")
    save_policy(file, PlacementNetwork(layout.sizes, hidden=4), layout, {}, short)
    with pytest.raises(InputError, match=r"weight 'seen\.low' has shape"):
        load_policy(file)
