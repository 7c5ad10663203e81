"""One decision of a learned policy: what it knows is computed once, when it is first needed."""

from collections.abc import Mapping

import numpy as np

from envs.choices import Choices, ChoiceSet
from envs.cluster import RequestView, RouterView
from envs.observation import encode


class Decision:
    """A request to place.

    Attributes:
        request, view: as `Policy.place` gets them.
    """

    __slots__ = ("_choice_set", "_choices", "_observation", "request", "view")

    def __init__(self, request: RequestView, view: RouterView, choice_set: ChoiceSet) -> None:
        self.request, self.view = request, view
        self._choice_set: ChoiceSet = choice_set
        self._choices: Choices | None = None
        self._observation: Mapping[str, np.ndarray] | None = None

    @property
    def choices(self) -> Choices:
        """The choices."""
        if self._choices is None:
            self._choices = Choices.of(self.request, self.view, self._choice_set)
        return self._choices

    @property
    def observation(self) -> Mapping[str, np.ndarray]:
        """The observation of the environment."""
        if self._observation is None:
            self._observation = encode(self.choices)
        return self._observation
