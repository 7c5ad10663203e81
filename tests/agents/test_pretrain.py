"""Warm starts: the network learns from arrays."""

import numpy as np
import pytest
import torch

from agents.placement_network import PlacementNetwork
from agents.pretrain import FitArguments, clone_actions, lower_costs
from tests.agents.observations import SIZES, as_tensors, make_observation

OBSERVATIONS = make_observation(seed=0, choices=4, batch=3000)
COSTS = OBSERVATIONS["choices"][:, :, 0] + OBSERVATIONS["choices"][:, :, 1] * OBSERVATIONS["request"][:, :1] + 50.0
ALLOWED = np.where(OBSERVATIONS["action_mask"] > 0, COSTS, np.inf)
FIT = FitArguments(epochs=12, batch_size=128, learning_rate=3e-3)


def regret(network: PlacementNetwork) -> float:
    """Mean cost above the cheapest placement, for another number of choices than in the fit."""
    observation = make_observation(seed=1, choices=6, batch=1000)
    costs = observation["choices"][:, :, 0] + observation["choices"][:, :, 1] * observation["request"][:, :1]
    costs = np.where(observation["action_mask"] > 0, costs, np.inf)
    with torch.no_grad():
        chosen = network(as_tensors(observation))[0].argmax(dim=1).numpy()
    return float((costs[np.arange(1000), chosen] - costs.min(axis=1)).mean())


@pytest.fixture
def network() -> PlacementNetwork:
    torch.manual_seed(0)
    return PlacementNetwork(SIZES, hidden=32)


def lowered(network: PlacementNetwork, kl_weight: float) -> list[float]:
    costs = np.where(OBSERVATIONS["action_mask"] > 0, COSTS, np.nan)  # masked choices have no cost
    scores = np.where(OBSERVATIONS["action_mask"] > 0, 0.0, -1e8)  # the reference is uniform
    groups = np.arange(len(costs)) % 3
    costs = costs * 10.0 ** groups[:, np.newaxis]  # the scale of a group's costs must not matter
    return lower_costs(network, OBSERVATIONS, costs, scores, groups, kl_weight, FIT).held_out_losses


def test_lowering_costs_finds_the_cheapest_placement(network: PlacementNetwork) -> None:
    before = regret(network)
    critic = [p.clone() for p in network.critic.parameters()]
    losses = lowered(network, kl_weight=0.05)
    assert regret(network) < 0.1 * before
    assert min(losses) < losses[0] - 0.5
    assert all(torch.equal(a, b) for a, b in zip(critic, network.critic.parameters(), strict=True))


def test_the_weight_of_the_divergence_keeps_the_policy_at_its_reference(network: PlacementNetwork) -> None:
    lowered(network, kl_weight=100.0)
    with torch.no_grad():
        probabilities = torch.softmax(network(as_tensors(OBSERVATIONS))[0], dim=1).numpy()
    uniform = OBSERVATIONS["action_mask"] / OBSERVATIONS["action_mask"].sum(axis=1, keepdims=True)
    assert np.abs(probabilities - uniform).max() < 0.1


def test_cloning_reproduces_an_experts_actions(network: PlacementNetwork) -> None:
    before = regret(network)
    clone_actions(network, OBSERVATIONS, ALLOWED.argmin(axis=1), FIT)
    assert regret(network) < 0.1 * before


def test_the_best_epoch_is_kept_and_a_fit_is_reproducible() -> None:
    def fitted() -> tuple[PlacementNetwork, list[float]]:
        torch.manual_seed(1)
        network = PlacementNetwork(SIZES, hidden=8)
        arguments = FitArguments(epochs=3, batch_size=64, learning_rate=0.5)  # far too fast: later epochs are worse
        return network, clone_actions(network, OBSERVATIONS, ALLOWED.argmin(axis=1), arguments).held_out_losses

    (first, losses), (second, _) = fitted(), fitted()
    torch.testing.assert_close(first.state_dict(), second.state_dict(), atol=0, rtol=0)
    assert len(losses) == 4
