"""What an observation's numbers mean; shared by training, which needs torch, and by evaluation, which does not."""

from typing import NamedTuple

MASKED_SCORE = -1e8
"""Score of a choice that may not be made: no probability, and still finite."""


class FeatureSizes(NamedTuple):
    """How many features each part of an observation has; all that a network's shape depends on."""

    request: int
    global_: int
    choice: int


class Layout(NamedTuple):
    """The meaning of an observation: a policy is only good for the layout it was trained on.

    Attributes:
        version: of how features are computed and squashed.
        choice_set: which choices the rows are, see `envs.choices`.
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
