"""The range of each feature in training, for two purposes.

- Features that never varied (such as cached tokens without prefix caches) get no weight: `fold_constants`.
- Inputs outside the ranges are recognised, so that a rule can decide: `SeenRange`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # only training needs torch
    from agents.placement_network import PlacementNetwork

TOLERANCE = 0.1
"""An input is outside if a squashed feature is this much beyond all that was seen. Not from a paper."""


class SeenRange(NamedTuple):
    """The smallest and the largest value of each feature, as squashed: of the request, of `global`, and of choices."""

    low: np.ndarray  # (R + G + F,) float32
    high: np.ndarray

    @classmethod
    def of(cls, observations: Mapping[str, np.ndarray]) -> "SeenRange":
        """The range of observations with a leading axis of examples; rows of zeros with mask 0 are padding."""
        present = (observations["action_mask"] > 0) | observations["choices"].any(axis=2)
        parts = [observations["request"], observations["global"], observations["choices"][present]]
        return cls(*(np.concatenate([bound(part, axis=0) for part in parts]) for bound in (np.min, np.max)))

    def without(self, columns: Sequence[int]) -> "SeenRange":
        """The same, but with every value of these features inside."""
        low, high = self.low.copy(), self.high.copy()
        low[list(columns)], high[list(columns)] = 0.0, 1.0
        return SeenRange(low, high)

    def has(self, observation: Mapping[str, np.ndarray]) -> bool:
        """Whether request and global features of one observation are inside, up to TOLERANCE."""
        # For so few numbers, lists are faster than arrays.
        values = [*observation["request"].tolist(), *observation["global"].tolist()]
        ranges = zip(self.low.tolist(), values, self.high.tolist(), strict=False)
        return all(low - TOLERANCE <= value <= high + TOLERANCE for low, value, high in ranges)


def fold_constants(network: "PlacementNetwork", seen: SeenRange) -> None:
    """Remove the actor's weights of features of choices that had the same value in all observations.

    The scores of such observations do not change, because biases take the part of the weights. Otherwise weights that
    were never trained would act at random where the features do vary.

    Args:
        network: its actor is changed in place.
        seen: range of the observations.
    """
    import torch

    actor, sizes = network.actor, network.sizes
    first = sizes.request + sizes.global_
    low, high = seen.low[first:], seen.high[first:]
    columns = torch.as_tensor(np.flatnonzero(low == high))
    values = 2.0 * torch.as_tensor(low)[columns] - 1.0
    with torch.no_grad():
        for at in (first + columns, first + sizes.choice + columns):  # their mean and maximum in the summary
            for layer in (actor.summary, actor.context):
                layer.bias.add_(layer.weight[:, at] @ values)
                layer.weight[:, at] = 0.0
        actor.summary.bias.add_(actor.choice.weight[:, columns] @ values)
        actor.choice.weight[:, columns] = 0.0
        actor.skip.weight[:, columns] = 0.0  # the same for all choices, so scores keep their differences
