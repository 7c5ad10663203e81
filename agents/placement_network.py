"""The network that scores the choices for a request with the same two layers for every row.

The network does not depend on the number of choices or their order. A summary of the decision consists of the request,
the global features, and the mean and the maximum of each feature over the existing choices. The same weights score
every choice from its row and the summary; the value is computed from the summary. Permuting the rows permutes the
scores and does not change the value; weights trained on one cluster shape work for another.

Actor and critic share no weights, so that fitting the value cannot disturb the policy (separate networks do better in
Andrychowicz et al. 2020, arXiv 2006.05990, section 3.2).

Tensors with one row per choice take nearly all the time of an update, so there are few of them. The design follows
trials that fitted the scores of a larger network (one seed each; no command of the project repeats them):

- Pooling the features was nearly as good as pooling outputs of a first layer, and the critic needs no rows.
- A hard tanh was as good as a tanh in a fraction of the time; rectified linear units were worse.
- Features are in [0, 1]; shifting them to [-1, 1] (`CentredLinear`) gave a better fit after the same number of steps.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.layout import MASKED_SCORE, FeatureSizes


class CentredLinear(nn.Linear):
    """A linear layer of 2 x - 1 for inputs x in [0, 1]; the shift is applied to the weights, not to the inputs."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the layer's output (..., out_features)."""
        shift = self.weight.sum(dim=1)
        return functional.linear(values, 2.0 * self.weight, -shift if self.bias is None else self.bias - shift)


def summary_size(sizes: FeatureSizes) -> int:
    """Size of the summary of a decision."""
    return sizes.request + sizes.global_ + 2 * sizes.choice


def summarize(observation: Mapping[str, Tensor]) -> Tensor:
    """The summary of observations, (B, summary_size): request, global features, mean and maximum over the choices."""
    choices = observation["choices"]
    # A masked row of zeros is padding; other masked rows are choices and count. Features are at least 0, so padding
    # does not change a sum or a maximum.
    present = (observation["action_mask"] > 0) | (choices.amax(dim=2) > 0)
    mean = choices.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([observation["request"], observation["global"], mean, choices.amax(dim=1)], dim=1)


class Actor(nn.Module):
    """Scores every choice with two layers over its row and the summary, plus a linear skip connection.

    A layer over the summary alone (`context`) comes first, because which kind of choice is right depends on the load,
    the TBT SLO and the lengths together; it has no rows and takes little time.
    """

    def __init__(self, sizes: FeatureSizes, hidden: int, skip_start: Mapping[int, float]) -> None:
        super().__init__()
        # The first layer over [row, summary, context] is a sum, so that all but the row's part is computed once.
        self.choice = CentredLinear(sizes.choice, hidden, bias=False)
        self.summary = CentredLinear(summary_size(sizes), hidden)
        self.context = CentredLinear(summary_size(sizes), hidden)
        self.gate = nn.Linear(hidden, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias for all choices would have no effect
        self.skip = nn.Linear(sizes.choice, 1, bias=False)
        _orthogonal(self, last=self.score, last_gain=0.01)
        with torch.no_grad():
            self.skip.weight.zero_()
            for column, weight in skip_start.items():
                self.skip.weight[0, column] = weight

    def forward(self, observation: Mapping[str, Tensor], summary: Tensor) -> Tensor:
        """Return scores (B, C), the logits of the choices; they are MASKED_SCORE if the mask is 0."""
        choices = observation["choices"]
        of_all = self.summary(summary) + self.gate(functional.hardtanh(self.context(summary)))
        embedding = functional.hardtanh(self.choice(choices) + of_all.unsqueeze(1))
        hidden = functional.hardtanh(self.second(embedding))
        scores: Tensor = hidden @ self.score.weight[0] + choices @ self.skip.weight[0]
        return scores.masked_fill(observation["action_mask"] <= 0, MASKED_SCORE)


class Critic(nn.Module):
    """Computes the value of a state from the summary.

    Its activation is bounded, so that it approaches the value of overload, which is a hundred times that of other
    states, in small steps. With rectified linear units it fitted the same returns in a fifth of the steps, but training
    was worse: after an overload, values in the hundreds decreased slowly because they are bootstrapped from each other,
    and meanwhile their gradients used up most of `max_grad_norm`.
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
        hidden: width of the actor's layers; the critic's layers, which have no rows, are twice as wide.
        skip_start: initial weights of the skip connection by column of a choice's row; the others start at 0. The
            actor's other output starts near 0, so these weights are the policy before training: {predicted TTFT: -40}
            is close to shortest predicted TTFT, and no weights are close to the uniform policy. State them with every
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
            observation: "request" (B, R), "global" (B, G), "choices" (B, C, F) and "action_mask" (B, C); features are
                in [0, 1], as in the environment's observation space.
        """
        summary = summarize(observation)
        return self.actor(observation, summary), self.critic(summary)

    # stable-baselines3 calls actor and critic by these names.
    def forward_actor(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B, C)."""
        scores: Tensor = self.actor(observation, summarize(observation))
        return scores

    def forward_critic(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return values (B, 1)."""
        values: Tensor = self.critic(summarize(observation))
        return values


def _orthogonal(module: nn.Module, last: nn.Linear, last_gain: float) -> None:
    """Set orthogonal weights and zero biases, as in stable-baselines3; layer `last` has gain `last_gain`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=last_gain if layer is last else math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
