"""The placement network as a stable-baselines3 policy."""

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents.layout import FeatureSizes
from agents.network import PlacementNetwork


class PlacementActorCritic(ActorCriticPolicy):
    """ActorCriticPolicy whose whole network is a PlacementNetwork, as `self.network`.

    Args:
        observation_space: Dict of "request" (R,), "global" (G,), "choices" (C, F), "action_mask" (C,).
        action_space: Discrete(C).
        lr_schedule: learning rate by remaining progress (1 to 0).
        hidden: width of the network's layers.
        skip_start: see PlacementNetwork.
        kwargs: ActorCriticPolicy's own.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        hidden: int = 64,
        skip_start: Mapping[int, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.hidden = hidden
        self.skip_start = dict(skip_start or {})
        kwargs["features_extractor_class"] = WholeObservation
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    @property
    def network(self) -> PlacementNetwork:
        """The network itself, for copying weights in and out."""
        network: PlacementNetwork = self.mlp_extractor
        return network

    def _build(self, lr_schedule: Schedule) -> None:
        # The network gives logits and value itself, so what the base class would put behind it is the
        # identity, and the optimizer is built here, over these parameters only.
        self.mlp_extractor = PlacementNetwork(feature_sizes(self.observation_space), self.hidden, self.skip_start)
        self.action_net = nn.Identity()
        self.value_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._get_constructor_parameters()
        del parameters["features_extractor_class"]
        return {**parameters, "hidden": self.hidden, "skip_start": self.skip_start}


class WholeObservation(BaseFeaturesExtractor):
    """A features extractor that extracts nothing: the network takes the observation by parts."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, features_dim=1)  # never read: nothing is built behind it

    def forward(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the observation as it is."""
        return observation


def feature_sizes(observation_space: spaces.Space[Any]) -> FeatureSizes:
    """Numbers of features in a placement environment's observation space."""
    assert isinstance(observation_space, spaces.Dict)
    shapes = {key: space.shape or () for key, space in observation_space.spaces.items()}
    return FeatureSizes(request=shapes["request"][0], global_=shapes["global"][0], choice=shapes["choices"][1])
