"""Warm starts: fit the network to actions or costs before PPO.

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

COST_LIMIT = 5.0
"""Limit of the scaled costs in `lower_costs`."""


class Fit(NamedTuple):
    """The held-out losses of a fit, before training and after each epoch; the weights with the least one were kept."""

    held_out_losses: list[float]


def lower_costs(
    network: PlacementNetwork,
    observations: Mapping[str, np.ndarray],
    costs: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    kl_weight: float,
    arguments: FitArguments = DEFAULT_FIT,
) -> Fit:
    """Lower the expected cost of the choices, near a reference policy.

    The loss of a decision is its expected cost under the policy, minus that under the reference, plus `kl_weight` times
    the KL divergence from the reference. All choices of a decision have costs, so this is a policy gradient without the
    noise of sampled actions. In every group of decisions, costs are divided by the mean gain of the cheapest choice
    over the reference, so that all workloads weigh the same, and clipped to COST_LIMIT of these units.

    Args:
        network: its actor is fitted in place.
        observations: "request" (M, R), "global" (M, G), "choices" (M, C, F), "action_mask" (M, C).
        costs: costs of the choices, (M, C); entries with mask 0 are not read.
        scores: scores of the reference policy, (M, C).
        groups: group of each decision, such as its workload, (M,).
        kl_weight: see above.
        arguments: arguments of the fit.
    """
    allowed = observations["action_mask"] > 0
    reference = np.where(allowed, np.exp(scores - np.where(allowed, scores, -np.inf).max(axis=1, keepdims=True)), 0.0)
    reference /= reference.sum(axis=1, keepdims=True)
    costs = np.where(allowed, costs, 0.0)
    above = np.where(allowed, costs - (reference * costs).sum(axis=1, keepdims=True), 0.0)
    for group in np.unique(groups):
        inside = groups == group
        gain = -above[inside].min(axis=1)
        # The mean without the largest gains: a few decisions cost a hundred times as much as most.
        above[inside] /= np.minimum(gain, np.quantile(gain, 0.95)).mean() + 1e-9
    targets = np.stack([np.clip(above, -COST_LIMIT, COST_LIMIT), np.log(reference + 1e-30)], axis=2)

    def loss(batch: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        log_policy = torch.log_softmax(network.forward_actor(batch), dim=1)
        policy = log_policy.exp()  # 0 where the mask is 0
        kl = (policy * (log_policy - targets[:, :, 1])).masked_fill(batch["action_mask"] <= 0, 0.0)
        return ((policy * targets[:, :, 0]) + kl_weight * kl).sum(dim=1).mean()

    return _fit(network, observations, targets.astype(np.float32), loss, arguments)


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
