"""Fitting the model of `agents.selection` to episodes that all members of the portfolio have played."""

import copy
from collections.abc import Sequence
from math import inf, log

import numpy as np
import torch
from torch import Tensor, nn

from agents.distillation import MISS_WEIGHT, Played, best_rule
from agents.selection import RegretModel

_USABLE = 0.01
_MOST = 1.0
_NETWORKS, _HIDDEN, _EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 2, 80, 80, 1024, 1e-2, 1e-3
_SELECTION_WEIGHT, _TEMPERATURE = 3.0, 0.05  # of the loss: the regret of a member drawn by predictions
_HELD_OUT = 0.15  # share of the episodes, used only for choosing the epoch


def regrets(played: Sequence[Played]) -> list[float]:
    """The regret of each member on an episode that all have played, from 0 to 1.

    The best member has the lowest P95 TTFT among those whose SLO attainment is within a point of the highest, as in the
    virtual best. A regret is the logarithm of the ratio of the P95 TTFTs, at least 0, plus 0.2 for each point of SLO
    attainment less than the best member's. These weights are not from a paper.
    """
    best = played[best_rule(played, _USABLE)]
    found = []
    for one in played:
        slower = log(one.ttft_p95_s / best.ttft_p95_s) if one.ttft_p95_s < inf else _MOST
        missed = MISS_WEIGHT * (best.attainment - one.attainment)
        found.append(min(_MOST, max(0.0, slower) + max(0.0, missed)))
    return found


class _Model(nn.Module):
    """RegretModel in torch, on scaled contexts."""

    def __init__(self, features: int, members: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, _HIDDEN)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.regret = nn.Linear(_HIDDEN, members)

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

    Returns:
        The model, and the mean regret of the selected members on the held-out episodes.
    """
    rng = np.random.default_rng(seed)
    out = rng.permutation(len(regret)) < _HELD_OUT * len(regret)
    inside, outside = np.flatnonzero(~out[episode]), np.flatnonzero(out[episode])
    limits = {"low": contexts.min(axis=0).astype(np.float32), "high": contexts.max(axis=0).astype(np.float32)}
    scaled = torch.as_tensor(RegretModel(tuple(members), limits).scaled(contexts), dtype=torch.float32)
    targets = torch.as_tensor(regret[episode], dtype=torch.float32)
    torch.set_num_threads(1)  # a second one is slower at this size
    torch.manual_seed(seed)
    fitted = [_fitted(scaled, targets, inside, outside, epochs, rng) for _ in range(_NETWORKS)]
    weights = {name: np.stack([one[name].numpy() for one in fitted]) for name in fitted[0]}
    model = RegretModel(tuple(members), limits | weights)
    selected = [int(model.predict(context).argmin()) for context in contexts[outside]]
    return model, float(regret[episode[outside], selected].mean())


def _loss(roots: Tensor, regret: Tensor) -> Tensor:
    """The loss of predicted roots (B, M) where the members have these regrets (B, M)."""
    drawn = torch.softmax(-roots * roots.abs() / _TEMPERATURE, dim=1)
    return torch.square(roots - regret.sqrt()).mean() + _SELECTION_WEIGHT * (drawn * regret).sum(dim=1).mean()


def _fitted(
    scaled: Tensor, targets: Tensor, inside: np.ndarray, outside: np.ndarray, epochs: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """The weights of one network, of the epoch with the least loss on the contexts `outside`."""
    model = _Model(scaled.shape[1], targets.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = epochs * -(-len(inside) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
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
