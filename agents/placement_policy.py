"""Trained policies as placement policies with the same interface as rules."""

from pathlib import Path
from typing import cast

from agents.export import load_policy
from agents.layout import Layout
from agents.numpy_policy import NumpyActor
from envs.choices import CHOICE_SETS, Choices, ChoiceSet
from envs.cluster import Placement, RequestView, RouterView
from envs.features import CHOICE_FEATURES, GLOBAL_FEATURES, REQUEST_FEATURES
from envs.observation import LAYOUT_VERSION, encode
from hardware_profiles.errors import InputError


def current_layout(choice_set: str) -> Layout:
    """Layout of the current version's observations of a set of choices."""
    return Layout(
        version=LAYOUT_VERSION,
        choice_set=choice_set,
        request=tuple([feature.name for feature in REQUEST_FEATURES]),
        global_=tuple([feature.name for feature in GLOBAL_FEATURES]),
        choices=tuple([feature.name for feature in CHOICE_FEATURES]),
    )


class LearnedPolicy:
    """Uses the choice with the highest score of the trained network; it is deterministic.

    Args:
        path: a policy file.

    Raises:
        InputError: the file cannot be used; the message names the file and the reason.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        file = load_policy(self.path)
        choice_set = file.layout.choice_set
        if choice_set not in CHOICE_SETS or file.layout != current_layout(choice_set):
            raise InputError(
                f"{path}: trained on observation layout {file.layout.version} of {choice_set}, but this version has "
                f"layout {LAYOUT_VERSION} of {', '.join(CHOICE_SETS)}; train it again"
            )
        self.training = file.training
        self._choice_set = cast(ChoiceSet, choice_set)
        self._actor = NumpyActor(file.weights)

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        choices = Choices.of(request, view, self._choice_set)
        return choices.placement(self._actor.act(encode(choices)))
