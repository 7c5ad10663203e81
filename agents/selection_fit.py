"""Fitting the model of `agents.selection` to episodes that all members of the portfolio have played."""

import copy
from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from agents.selection import RegretModel

_NETWORKS, _HIDDEN, _EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 2, 80, 80, 1024, 1e-2, 1e-3
_REFINEMENTS, _REFINING_RATE = 3, 2e-3  # of a model that begins with another one
_SELECTION_WEIGHT, _TEMPERATURE = 3.0, 0.05  # of the loss: the regret of a member drawn by predictions
_UNKNOWN = 0.5  # the first prediction for members that the model to begin with does not have
_HELD_OUT = 0.15  # share of the episodes, used only for choosing the epoch


class _Model(nn.Module):
    """RegretModel in torch, on scaled contexts."""

    def __init__(self, features: int, hidden: int, members: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.regret = nn.Linear(hidden, members)

    def forward(self, scaled: Tensor) -> Tensor:
        found: Tensor = self.regret(torch.tanh(self.second(torch.tanh(self.first(scaled)))))
        return found


def fit(
    members: Sequence[str],
    contexts: np.ndarray,
    episode: np.ndarray,
    regret: np.ndarray,
    seed: int,
    epochs: int = _EPOCHS,
    learning_rate: float = _LEARNING_RATE,
    start: RegretModel | None = None,
) -> tuple[RegretModel, float]:
    """Fit the roots of the regrets; roots, because small regrets decide which member is selected.

    The loss is the squared error, plus the regret of a member that is drawn with a softmax of the negative predictions,
    which is close to that of the selected member and has a gradient.

    Args:
        members: names of the members.
        contexts: (N, K); several of each episode.
        episode: (N,) int; the episode of each context.
        regret: (E, M); the regrets of each episode.
        seed: of weights, held-out episodes and order of the batches.
        epochs: passes over the contexts.
        learning_rate: of the optimizer.
        start: a model to begin with, of some of these members and others.

    Returns:
        The model, and the mean regret of the selected members on the held-out episodes.
    """
    rng = np.random.default_rng(seed)
    out = rng.permutation(len(regret)) < _HELD_OUT * len(regret)
    inside, outside = np.flatnonzero(~out[episode]), np.flatnonzero(out[episode])
    limits = {"low": contexts.min(axis=0).astype(np.float32), "high": contexts.max(axis=0).astype(np.float32)}
    if start is not None:
        limits["low"] = np.minimum(limits["low"], start.weights["low"])
        limits["high"] = np.maximum(limits["high"], start.weights["high"])
        start = _with_limits(start, limits)
    scaled = torch.as_tensor(RegretModel(tuple(members), limits).scaled(contexts), dtype=torch.float32)
    targets = torch.as_tensor(regret[episode], dtype=torch.float32)
    torch.set_num_threads(1)  # a second one is slower at this size
    torch.manual_seed(seed)
    hidden = _HIDDEN if start is None else start.weights["first.bias"].shape[1]
    networks = [_Model(scaled.shape[1], hidden, len(members)) for _ in range(_NETWORKS)]
    if start is not None:
        for number, network in enumerate(networks):
            _begin_with(network, start, number, members)
    fitted = [_fitted(network, scaled, targets, inside, outside, epochs, learning_rate, rng) for network in networks]
    weights = {name: np.stack([one[name].numpy() for one in fitted]) for name in fitted[0]}
    found = RegretModel(tuple(members), limits | weights)
    selected = [int(found.predict(context).argmin()) for context in contexts[outside]]
    return found, float(regret[episode[outside], selected].mean())


def refine(
    start: RegretModel,
    members: Sequence[str],
    contexts: np.ndarray,
    episode: np.ndarray,
    regret: np.ndarray,
    seed: int,
) -> tuple[RegretModel, float]:
    """Fit as `fit`, but beginning with another model: the mean of the weights of several fits.

    Means of weights that were fitted from the same start, with other held-out episodes and batches, are nearly as good
    as means of predictions, and cost nothing later (model soups; Wortsman et al. 2022, arXiv 2203.05482).

    Returns:
        The model, and the mean regret of the members that the single fits select on their held-out episodes.
    """
    fits = [
        fit(members, contexts, episode, regret, seed + number, learning_rate=_REFINING_RATE, start=start)
        for number in range(_REFINEMENTS)
    ]
    weights = {name: np.mean([one.weights[name] for one, _ in fits], axis=0) for name in fits[0][0].weights}
    return RegretModel(tuple(members), weights), float(np.mean([held_out for _, held_out in fits]))


def _with_limits(model: RegretModel, limits: Mapping[str, np.ndarray]) -> RegretModel:
    """The same model for a wider range of contexts; within the old range, its predictions are the same."""
    w = model.weights
    wider = RegretModel(model.members, {**w, **limits})
    (old_scale, old_offset), (scale, offset) = model.scaling, wider.scaling
    # A scaled context s stands for the context (s - offset) / scale.
    slope = np.divide(old_scale, scale, out=np.zeros_like(scale), where=scale > 0.0)
    bias = w["first.bias"] + w["first.weight"] @ (old_offset - slope * offset)
    return RegretModel(model.members, {**wider.weights, "first.weight": w["first.weight"] * slope, "first.bias": bias})


def _begin_with(model: _Model, start: RegretModel, number: int, members: Sequence[str]) -> None:
    """Give a network the weights of one of a model's, those of the members that this one has not aside."""
    known = [name for name in members if name in start.members]
    to, of = [members.index(name) for name in known], [start.members.index(name) for name in known]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            begun = torch.as_tensor(start.weights[name][number % len(start.weights[name])])
            if name.startswith("regret."):
                weight.fill_(_UNKNOWN if name == "regret.bias" else 0.0)
                weight[to] = begun[of]
            else:
                weight.copy_(begun)


def _loss(roots: Tensor, regret: Tensor) -> Tensor:
    """The loss of predicted roots (B, M) where the members have these regrets (B, M)."""
    drawn = torch.softmax(-roots * roots.abs() / _TEMPERATURE, dim=1)
    return torch.square(roots - regret.sqrt()).mean() + _SELECTION_WEIGHT * (drawn * regret).sum(dim=1).mean()


def _fitted(
    model: _Model,
    scaled: Tensor,
    targets: Tensor,
    inside: np.ndarray,
    outside: np.ndarray,
    epochs: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """The weights of a network, of the epoch with the least loss on the contexts `outside`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    steps = epochs * -(-len(inside) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    best, best_loss = copy.deepcopy(model.state_dict()), inf
    for _ in range(epochs):
        for rows in torch.split(torch.as_tensor(rng.permutation(inside)), _BATCH):
            optimizer.zero_grad()
            loss = _loss(model(scaled[rows]), targets[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            held_out = float(_loss(model(scaled[outside]), targets[outside]))
        if held_out < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), held_out
    return best
