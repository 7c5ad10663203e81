"""The layout of observations; shared by training, which needs torch, and evaluation, which does not."""

from typing import NamedTuple

MASKED_SCORE = -1e8
"""Score of a masked choice: finite, but with probability 0."""


class FeatureSizes(NamedTuple):
    """Number of features in each part of an observation, on which the shape of a network depends."""

    request: int
    global_: int
    choice: int


class Layout(NamedTuple):
    """The meaning of an observation; a policy works only with the layout that it was trained with.

    Attributes:
        version: version of the computation and squashing of features.
        choice_set: set of choices, see `envs.choices`.
        request: names of the request's features.
        global_: names of the global features.
        choices: names of the features of a choice's row.
    """

    version: int
    choice_set: str
    request: tuple[str, ...]
    global_: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def sizes(self) -> FeatureSizes:
        """Numbers of features."""
        return FeatureSizes(len(self.request), len(self.global_), len(self.choices))
