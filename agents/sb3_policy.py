"""The placement network as a stable-baselines3 policy."""

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents.discounting import symexp
from agents.layout import FeatureSizes
from agents.placement_network import Actor, PlacementNetwork, summarize

_SHORTEST = 1e-30  # an exponential draw may be 0, and 0 / 0 is nan


class PlacementActorCritic(ActorCriticPolicy):
    """ActorCriticPolicy with a PlacementNetwork, `self.network`, as its whole network.

    The methods that PPO calls for every step and every batch use the network directly. The base class's path through a
    features extractor and a distribution object gives the same numbers at several times the cost; all other methods use
    it.

    Args:
        observation_space: Dict of "request" (R,), "global" (G,), "choices" (C, F), "action_mask" (C,).
        action_space: Discrete(C).
        lr_schedule: learning rate by remaining progress (1 to 0).
        hidden: width of the network's layers.
        skip_start: see PlacementNetwork.
        kwargs: arguments of ActorCriticPolicy.

    Attributes:
        mean_entropy: mean entropy of the policy over the last batch.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        hidden: int = 32,
        skip_start: Mapping[int, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.hidden = hidden
        self.skip_start = dict(skip_start or {})
        self.mean_entropy = 0.0
        self._bonus: tuple[float, float, tuple[Actor | None]] = (1.0, 0.0, (None,))
        kwargs["features_extractor_class"] = WholeObservation
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    @property
    def network(self) -> PlacementNetwork:
        """The network."""
        network: PlacementNetwork = self.mlp_extractor
        return network

    def _build(self, lr_schedule: Schedule) -> None:
        # The network computes logits and value, so the base class's layers after it are the identity. The optimizer is
        # built here, so that it has only these parameters.
        self.mlp_extractor = PlacementNetwork(feature_sizes(self.observation_space), self.hidden, self.skip_start)
        self.action_net = nn.Identity()
        self.value_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def forward(self, obs: dict[str, Tensor], deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Choose an action for each observation.

        Args:
            obs: a batch of observations.
            deterministic: use the most likely action instead of sampling.

        Returns:
            Actions (B,), values (B, 1), and the actions' log probabilities (B,).
        """
        scores, log_values = self.network(obs)
        values = symexp(log_values)
        log_probabilities = torch.log_softmax(scores, dim=1)
        if deterministic:
            actions = scores.argmax(dim=1)
        else:
            # The index of the first of exponential arrivals with these rates is a sample; a rate of 0 never arrives.
            clocks = torch.empty_like(scores).exponential_().clamp_(min=_SHORTEST)
            actions = log_probabilities.exp().div_(clocks).argmax(dim=1)
        return actions, values, log_probabilities.gather(1, actions.unsqueeze(1)).squeeze(1)

    def set_bonus(self, entropy_weight: float, kl_weight: float, anchor: Actor | None) -> None:
        """Set what `evaluate_actions` returns in the place of the entropy.

        Args:
            entropy_weight: weight of the entropy.
            kl_weight: weight of the KL divergence from the policy of `anchor`, which counts negatively.
            anchor: an actor that is not trained; None: there is none.
        """
        # In a tuple, so that torch does not take it for a part of this module.
        self._bonus = entropy_weight, kl_weight, (anchor,)

    def evaluate_actions(self, obs: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate actions (B,).

        Returns:
            Values (B, 1) as the critic computes them, which are compared with the buffer's returns (see
            TimeDiscountedBuffer), the actions' log probabilities (B,), and a bonus for each distribution (B,), which
            PPO raises: its entropy, or what `set_bonus` says.
        """
        summary = summarize(obs)
        scores, values = self.network.actor(obs, summary), self.network.critic(summary)
        log_probabilities = torch.log_softmax(scores, dim=1)
        probabilities = log_probabilities.exp()
        entropies = -(probabilities * log_probabilities).sum(dim=1)  # 0 * -1e8 for a masked action
        self.mean_entropy = float(entropies.detach().mean())
        entropy_weight, kl_weight, (anchor,) = self._bonus
        bonus = entropy_weight * entropies
        if anchor is not None and kl_weight:
            with torch.no_grad():
                wanted = torch.log_softmax(anchor(obs, summary), dim=1)
            bonus = bonus - kl_weight * (probabilities * (log_probabilities - wanted)).sum(dim=1)
        return values, log_probabilities.gather(1, actions.long().unsqueeze(1)).squeeze(1), bonus

    def predict_values(self, obs: dict[str, Tensor]) -> Tensor:
        """Return the values (B, 1) of observations."""
        return symexp(self.network.forward_critic(obs))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._get_constructor_parameters()
        del parameters["features_extractor_class"]
        return {**parameters, "hidden": self.hidden, "skip_start": self.skip_start}


class WholeObservation(BaseFeaturesExtractor):
    """A features extractor that returns the observation unchanged, because the network uses its parts."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, features_dim=1)  # never read, because no layer follows

    def forward(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the observation unchanged."""
        return observation


def feature_sizes(observation_space: spaces.Space[Any]) -> FeatureSizes:
    """Numbers of features in a placement environment's observation space."""
    assert isinstance(observation_space, spaces.Dict)
    shapes = {key: space.shape or () for key, space in observation_space.spaces.items()}
    return FeatureSizes(request=shapes["request"][0], global_=shapes["global"][0], choice=shapes["choices"][1])
