"""The network that scores the choices for a request: the same two layers for every row.

Nothing in it depends on how many choices there are or on their order. A summary of the decision holds the request, the
global features, and the mean and the maximum of each feature over the choices that exist. Every choice is scored by the
same weights from its row and the summary, and the value comes from the summary. Permuting the rows permutes the scores
and leaves the value as it was; weights trained on one cluster shape load into a network for another.

Actor and critic share no weights, so that fitting the value cannot disturb the policy (separate networks do better in
Andrychowicz et al. 2020, arXiv 2006.05990, section 3.2).

Nearly all the time of an update goes into tensors with a row for each choice, so there are few of them. In trials that
fitted the scores of a larger network, each with one seed and repeated by no command here:

- Features pooled as they are served nearly as well as pooled outputs of a first layer, and need no rows in the critic.
- An activation cut off at -1 and 1 served as well as a tanh in a fraction of its time; rectified rows served worse.
- Features lie in [0, 1], and moving them to [-1, 1] (`CentredLinear`) brought a fit nearer in as many steps.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.layout import MASKED_SCORE, FeatureSizes


class CentredLinear(nn.Linear):
    """A layer over 2 x - 1 for inputs x in [0, 1]; the shift is made in the weights, not in the inputs."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the layer's output (..., out_features)."""
        shift = self.weight.sum(dim=1)
        return functional.linear(values, 2.0 * self.weight, -shift if self.bias is None else self.bias - shift)


def summary_size(sizes: FeatureSizes) -> int:
    """Numbers in the summary of a decision."""
    return sizes.request + sizes.global_ + 2 * sizes.choice


def summarize(observation: Mapping[str, Tensor]) -> Tensor:
    """The summary (B, summary_size) of observations: request, global features, mean and maximum over the choices."""
    choices = observation["choices"]
    # A row of zeros that may not be chosen is padding; a choice that merely may not be made still counts. Features are
    # 0 or more, so padding adds nothing to a sum and is never above a maximum.
    present = (observation["action_mask"] > 0) | (choices.amax(dim=2) > 0)
    mean = choices.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([observation["request"], observation["global"], mean, choices.amax(dim=1)], dim=1)


class Actor(nn.Module):
    """Scores every choice: two layers over its row and the summary, plus a linear skip from its features."""

    def __init__(self, sizes: FeatureSizes, hidden: int, skip_start: Mapping[int, float]) -> None:
        super().__init__()
        # A layer over [row, summary], as the sum of two: the summary's share is computed once for all rows.
        self.choice = CentredLinear(sizes.choice, hidden, bias=False)
        self.summary = CentredLinear(summary_size(sizes), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias common to all choices changes nothing
        self.skip = nn.Linear(sizes.choice, 1, bias=False)
        _orthogonal(self, last=self.score, last_gain=0.01)
        with torch.no_grad():
            self.skip.weight.zero_()
            for column, weight in skip_start.items():
                self.skip.weight[0, column] = weight

    def forward(self, observation: Mapping[str, Tensor], summary: Tensor) -> Tensor:
        """Return scores (B, C), logits of the choices; MASKED_SCORE where the mask is 0."""
        choices = observation["choices"]
        embedding = functional.hardtanh(self.choice(choices) + self.summary(summary).unsqueeze(1))
        hidden = functional.hardtanh(self.second(embedding))
        scores: Tensor = hidden @ self.score.weight[0] + choices @ self.skip.weight[0]
        return scores.masked_fill(observation["action_mask"] <= 0, MASKED_SCORE)


class Critic(nn.Module):
    """Value of a state, from the summary.

    Its activation is bounded, so that the value of overload, a hundred times all others, is approached in small steps.
    Rectified, it fits the same returns in a fifth of the steps, and training got worse: values that had followed an
    overload into the hundreds came down slowly, since they are bootstrapped from each other, and their gradients left
    the policy little of `max_grad_norm` meanwhile.
    """

    def __init__(self, sizes: FeatureSizes, hidden: int) -> None:
        super().__init__()
        self.first = CentredLinear(summary_size(sizes), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, 1)
        _orthogonal(self, last=self.value, last_gain=1.0)

    def forward(self, summary: Tensor) -> Tensor:
        """Return values (B, 1)."""
        value: Tensor = self.value(torch.tanh(self.second(torch.tanh(self.first(summary)))))
        return value


class PlacementNetwork(nn.Module):
    """Actor and critic over the same observation.

    Args:
        sizes: numbers of features.
        hidden: width of the actor's layers; the critic's, which has no rows, are twice as wide.
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
        self.critic = Critic(sizes, 2 * hidden)

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (scores (B, C), values (B, 1)) of a batch of observations.

        Args:
            observation: "request" (B, R), "global" (B, G), "choices" (B, C, F) and "action_mask" (B, C); features lie
                in [0, 1], as the environment's observation space says.
        """
        summary = summarize(observation)
        return self.actor(observation, summary), self.critic(summary)

    # stable-baselines3 calls the two halves by these names.
    def forward_actor(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B, C)."""
        scores: Tensor = self.actor(observation, summarize(observation))
        return scores

    def forward_critic(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return values (B, 1)."""
        values: Tensor = self.critic(summarize(observation))
        return values


def _orthogonal(module: nn.Module, last: nn.Linear, last_gain: float) -> None:
    """Orthogonal weights and zero biases, as in stable-baselines3; `last` is scaled by its own gain."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=last_gain if layer is last else math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
