"""Warm starts: fit the network to costs or actions before PPO.

Inputs are plain arrays. The network is exactly permutation-equivariant, so permuted rows would be no new examples. Some
of the examples are held out; the result has the weights of the epoch with the least held-out loss.
"""

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agents.placement_network import PlacementNetwork

Loss = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""Maps (observations, targets) of a batch to the mean loss."""


class FitArguments(NamedTuple):
    """The arguments of a fit.

    Attributes:
        epochs: passes over the examples.
        batch_size: examples per gradient step.
        learning_rate: initial learning rate of Adam, decreasing linearly to 0.
        held_out: share of the examples used only for choosing the epoch.
        seed: seed of the split and of the order of the batches.
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    held_out: float = 0.1
    seed: int = 0


DEFAULT_FIT = FitArguments()


class Fit(NamedTuple):
    """The held-out losses of a fit, before training and after each epoch; the weights with the least one were kept."""

    held_out_losses: list[float]


def regress_costs(
    network: PlacementNetwork,
    observations: Mapping[str, np.ndarray],
    costs: np.ndarray,
    temperature: float,
    arguments: FitArguments = DEFAULT_FIT,
    robust_above: float = 0.2,
) -> Fit:
    """Fit scores to the negative costs of the choices, centred per decision, with the Huber loss.

    Args:
        network: its actor is fitted in place.
        observations: "request" (M, R), "global" (M, G), "choices" (M, C, F), "action_mask" (M, C).
        costs: costs of the choices, (M, C); entries with mask 0 are not read.
        temperature: cost difference that makes one choice e times as likely as another in the policy's softmax. A large
            value leaves more exploration to PPO; the choice with the best score does not depend on it.
        robust_above: cost errors above this count linearly instead of squared (Huber), because a few decisions cost a
            hundred times as much as most.
        arguments: arguments of the fit.
    """

    def loss(batch: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        allowed = batch["action_mask"] > 0
        wanted = _centred(-targets / temperature, allowed)
        found = _centred(network.forward_actor(batch), allowed)
        return functional.huber_loss(found[allowed], wanted[allowed], delta=robust_above / temperature)

    return _fit(network, observations, np.asarray(costs, np.float32), loss, arguments)


def clone_actions(
    network: PlacementNetwork,
    observations: Mapping[str, np.ndarray],
    actions: np.ndarray,
    arguments: FitArguments = DEFAULT_FIT,
) -> Fit:
    """Fit the actor to an expert's actions (M,), with the cross-entropy loss."""

    def loss(batch: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        return functional.cross_entropy(network.forward_actor(batch), targets)

    return _fit(network, observations, np.asarray(actions, np.int64), loss, arguments)


def fit_values(
    network: PlacementNetwork,
    observations: Mapping[str, np.ndarray],
    returns: np.ndarray,
    arguments: FitArguments = DEFAULT_FIT,
) -> Fit:
    """Fit the critic to discounted returns (M,), which are scaled as in training."""

    def loss(batch: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        return functional.mse_loss(network.forward_critic(batch).squeeze(1), targets)

    return _fit(network, observations, np.asarray(returns, np.float32), loss, arguments)


def _centred(scores: Tensor, allowed: Tensor) -> Tensor:
    """Scores minus their mean over the allowed rows; 0 in the other rows."""
    scores = torch.where(allowed, scores, 0.0)
    mean = scores.sum(dim=1, keepdim=True) / allowed.sum(dim=1, keepdim=True)
    return torch.where(allowed, scores - mean, 0.0)


def _fit(
    network: PlacementNetwork,
    observations: Mapping[str, np.ndarray],
    targets: np.ndarray,
    loss: Loss,
    arguments: FitArguments,
) -> Fit:
    generator = torch.Generator().manual_seed(arguments.seed)
    order = torch.randperm(len(targets), generator=generator)
    split = max(1, round(arguments.held_out * len(targets)))
    held_out, training = order[:split], order[split:]
    inputs = {name: torch.as_tensor(array) for name, array in observations.items()}
    wanted = torch.as_tensor(targets)

    def of(rows: Tensor) -> Tensor:
        return loss({name: tensor[rows] for name, tensor in inputs.items()}, wanted[rows])

    optimizer = torch.optim.Adam(network.parameters(), lr=arguments.learning_rate)
    steps = max(1, arguments.epochs * -(-len(training) // arguments.batch_size))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / steps, total_iters=steps)
    with torch.no_grad():
        losses = [float(of(held_out))]
    best = copy.deepcopy(network.state_dict())
    for _ in range(arguments.epochs):
        shuffled = training[torch.randperm(len(training), generator=generator)]
        for rows in torch.split(shuffled, arguments.batch_size):
            optimizer.zero_grad()
            of(rows).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            losses.append(float(of(held_out)))
        if losses[-1] == min(losses):
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    return Fit(losses)
