"""The network that scores the choices for a request: one encoder, shared by all rows.

Nothing in it depends on how many choices there are or on their order. Each choice is encoded by the same weights
together with the request and the global features; the embeddings are pooled (mean and max over the choices that
exist), and the same head scores every choice from its own embedding and the pool. Permuting the rows permutes
the scores and leaves the value as it was; weights trained on one cluster shape load into a network for another.

Actor and critic have an encoder each, so that fitting the value cannot disturb the policy
(separate networks do better in Andrychowicz et al. 2020, arXiv 2006.05990, section 3.2).

Nearly all the time of an update is spent on tensors with a row per choice, so these are few and narrow: one layer
before the pool and one after it. The activation is the rectifier: on such a tensor tanh costs as much as six layers of
this width, and a rectified embedding is never below 0, so rows that do not exist can be set to 0 for both pools.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.layout import MASKED_SCORE, FeatureSizes


class Encoder(nn.Module):
    """Embeds every choice and pools the embeddings.

    A layer over [choice, context] is written as the sum of two layers, so that the context's share is computed
    once per decision and not once per choice.
    """

    def __init__(self, sizes: FeatureSizes, hidden: int) -> None:
        super().__init__()
        context = sizes.request + sizes.global_
        self.choice = nn.Linear(sizes.choice, hidden, bias=False)
        self.context = nn.Linear(context, hidden)
        self.summary_size = 2 * hidden + context

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return embeddings of the choices (B, C, hidden) and their summary (B, summary_size)."""
        choices = observation["choices"]
        context = torch.cat([observation["request"], observation["global"]], dim=1)
        embedding = _row_layer(self.choice, choices, self.context(context))
        # A row of zeros that may not be chosen is padding; a choice that merely may not be made still counts. Features
        # are 0 or more, so the largest says whether a row has any.
        present = (observation["action_mask"] > 0) | (choices.amax(dim=2) > 0)
        if bool(present.all()):  # as good as always in training, and three passes over the embeddings less
            return embedding, torch.cat([embedding.mean(dim=1), _highest(embedding), context], dim=1)
        weight = present.unsqueeze(2).to(embedding.dtype)
        existing = embedding * weight
        mean = existing.sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return embedding, torch.cat([mean, _highest(existing), context], dim=1)


class Actor(nn.Module):
    """Scores every choice: a head over its embedding and the summary, plus a linear skip from its features."""

    def __init__(self, sizes: FeatureSizes, hidden: int, skip_start: Mapping[int, float]) -> None:
        super().__init__()
        self.encoder = Encoder(sizes, hidden)
        self.choice = nn.Linear(hidden, hidden, bias=False)
        self.summary = nn.Linear(self.encoder.summary_size, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias common to all choices changes nothing
        self.skip = nn.Linear(sizes.choice, 1, bias=False)
        _orthogonal(self, last=self.score, last_gain=0.01)
        with torch.no_grad():
            self.skip.weight.zero_()
            for column, weight in skip_start.items():
                self.skip.weight[0, column] = weight

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B, C), logits of the choices; MASKED_SCORE where the mask is 0."""
        embedding, summary = self.encoder(observation)
        hidden = _row_layer(self.choice, embedding, self.summary(summary))
        scores: Tensor = hidden @ self.score.weight[0] + observation["choices"] @ self.skip.weight[0]
        return scores.masked_fill(observation["action_mask"] <= 0, MASKED_SCORE)


class Critic(nn.Module):
    """Value of a state, from the summary."""

    def __init__(self, sizes: FeatureSizes, hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(sizes, hidden)
        self.summary = nn.Linear(self.encoder.summary_size, hidden)
        self.value = nn.Linear(hidden, 1)
        _orthogonal(self, last=self.value, last_gain=1.0)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return values (B, 1)."""
        _, summary = self.encoder(observation)
        value: Tensor = self.value(torch.relu(self.summary(summary)))
        return value


class PlacementNetwork(nn.Module):
    """Actor and critic over the same observation.

    Args:
        sizes: numbers of features.
        hidden: width of every layer.
        skip_start: what the skip's weights start from, by column of a choice's row; the others start at 0. The
            head starts near 0, so this is the policy before any training: {predicted TTFT: -40} begins near
            shortest predicted TTFT, and nothing given begins near the uniform policy. State it with any
            result.
    """

    def __init__(self, sizes: FeatureSizes, hidden: int = 32, skip_start: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        self.hidden = hidden
        self.actor = Actor(sizes, hidden, skip_start or {})
        self.critic = Critic(sizes, hidden)

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (scores (B, C), values (B, 1)) of a batch of observations.

        Args:
            observation: "request" (B, R), "global" (B, G), "choices" (B, C, F) and "action_mask" (B, C); features are
                0 or more, as in the environment's observation space.
        """
        return self.forward_actor(observation), self.forward_critic(observation)

    # stable-baselines3 calls the two halves by these names.
    def forward_actor(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B, C)."""
        scores: Tensor = self.actor(observation)
        return scores

    def forward_critic(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return values (B, 1)."""
        values: Tensor = self.critic(observation)
        return values


def _row_layer(layer: nn.Linear, rows: Tensor, context: Tensor) -> Tensor:
    """The rectified sum of a layer over rows (B, C, F) and a context (B, hidden) that they share."""
    # Rectified in place: it is the result of an addition, which is no view and which nothing else reads.
    return torch.relu_(layer(rows) + context.unsqueeze(1))


def _highest(embedding: Tensor) -> Tensor:
    """The maximum over the rows, (B, hidden)."""
    highest: Tensor = _Highest.apply(embedding)  # type: ignore[no-untyped-call]
    return highest


class _Highest(torch.autograd.Function):
    """amax over rows, its gradient shared by the rows that reach it.

    torch's own gradient compares into booleans and converts them, which costs as much as a layer; a sign stays in
    floating point and costs a fifth of that.
    """

    @staticmethod
    def forward(context: Any, embedding: Tensor) -> Tensor:
        highest = embedding.amax(dim=1)
        context.save_for_backward(embedding, highest)
        return highest

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        embedding, highest = context.saved_tensors
        reached = (embedding - highest.unsqueeze(1)).sign_().add_(1.0)  # 1 where a row reaches the maximum, else 0
        return reached.mul_((gradients[0] / reached.sum(dim=1)).unsqueeze(1))


def _orthogonal(module: nn.Module, last: nn.Linear, last_gain: float) -> None:
    """Orthogonal weights and zero biases, as in stable-baselines3; `last` is scaled by its own gain."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=last_gain if layer is last else math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
