"""What a network has seen in training: the range of each feature, for two kinds of safety.

- Features that never varied (such as cached tokens without prefix caches) get no weight: `fold_constants`.
- Inputs outside the ranges are recognised, so that a rule can decide: `SeenRange`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # only training needs torch
    from agents.placement_network import PlacementNetwork

TOLERANCE = 0.1
"""An input is outside if a squashed feature is this much beyond all that was seen. Not from a paper."""


class SeenRange(NamedTuple):
    """The smallest and the largest value of the request and global features, (R + G,) each, as squashed."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, observations: Mapping[str, np.ndarray]) -> "SeenRange":
        """The range of observations with a leading axis of examples."""
        values = np.concatenate([observations["request"], observations["global"]], axis=1)
        return cls(values.min(axis=0), values.max(axis=0))

    def has(self, observation: Mapping[str, np.ndarray]) -> bool:
        """Whether one observation is inside, up to TOLERANCE."""
        values = np.concatenate((observation["request"], observation["global"]))
        return bool(((values >= self.low - TOLERANCE) & (values <= self.high + TOLERANCE)).all())


def fold_constants(network: "PlacementNetwork", observations: Mapping[str, np.ndarray]) -> list[int]:
    """Remove the actor's weights of features of choices that have the same value in all observations.

    The scores of such observations do not change, because biases take the part of the weights. Otherwise weights that
    were never trained would act at random where the features do vary.

    Args:
        network: its actor is changed in place.
        observations: "choices" (M, C, F) and "action_mask" (M, C); rows of zeros are padding.

    Returns:
        The columns of these features.
    """
    import torch

    present = (observations["action_mask"] > 0) | observations["choices"].any(axis=2)
    rows = observations["choices"][present]
    constant = np.flatnonzero(rows.min(axis=0) == rows.max(axis=0))
    values = torch.as_tensor(rows[0, constant])
    actor, sizes = network.actor, network.sizes
    first = sizes.request + sizes.global_
    columns = torch.as_tensor(constant)
    with torch.no_grad():
        for at in (first + columns, first + sizes.choice + columns):  # their mean and maximum in the summary
            for layer in (actor.summary, actor.context):
                layer.bias.add_(layer.weight[:, at] @ (2.0 * values - 1.0))
                layer.weight[:, at] = 0.0
        actor.summary.bias.add_(actor.choice.weight[:, columns] @ (2.0 * values - 1.0))
        actor.choice.weight[:, columns] = 0.0
        actor.skip.weight[:, columns] = 0.0  # the same for all choices, so scores keep their differences
    found: list[int] = constant.tolist()
    return found
