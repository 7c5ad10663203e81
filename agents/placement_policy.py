"""Trained policies as placement policies with the same interface as rules."""

from pathlib import Path
from typing import Literal, cast, get_args

from agents.export import load_policy
from agents.layout import Layout
from agents.numpy_policy import NumpyActor
from agents.selection import NETWORK, Selection
from envs.choices import CHOICE_SETS, Choices, ChoiceSet
from envs.cluster import Placement, RequestView, RouterView
from envs.features import CHOICE_FEATURES, GLOBAL_FEATURES, REQUEST_FEATURES
from envs.observation import LAYOUT_VERSION, encode
from hardware_profiles.errors import InputError
from policies import make
from policies.shortest_ttft import ShortestTTFT

Members = Literal["all", "network", "rules"]
"""The members of a portfolio that may place requests."""

FALLBACK = ShortestTTFT(alpha=0.8)
"""Decides where a network has seen nothing alike. It keeps the roles unless a deflection is predicted to be a fifth
faster, so it does not depend on how well all nodes can decode together."""

UNGUARDED = ("prefill_share_of_nodes",)
"""Features that may have any value: on 1P3D and 2P6D a policy that was trained on 2P2D alone did better than FALLBACK
(docs/model_card.md)."""


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
    """Uses the choice with the highest score of the trained network, or a rule; it is deterministic.

    If the file has a portfolio, the member with the least predicted regret places the requests: the network, or one of
    the rules (`agents.selection`). Where the network is to decide, but the request or the cluster is unlike all that it
    has seen in training (`agents.seen.SeenRange`), FALLBACK decides.

    Attributes:
        handed_over: decisions that a rule made.
        decisions: all decisions.

    Args:
        path: a policy file.
        guard: whether FALLBACK may decide.
        members: "network" and "rules" leave out the other members of the portfolio.

    Raises:
        InputError: the file cannot be used; the message names the file and the reason.
    """

    def __init__(self, path: str | Path, guard: bool = True, members: str = "all") -> None:
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
        names = (*file.layout.request, *file.layout.global_)
        unguarded = [names.index(name) for name in UNGUARDED]
        self._seen = file.seen.without(unguarded) if guard and file.seen is not None else None
        self.handed_over = self.decisions = 0
        self._selection: Selection | None = None
        if members not in get_args(Members):
            raise InputError(f"{path}: members must be {', '.join(get_args(Members))}, not {members!r}")
        if file.regret is None and members == "rules":
            raise InputError(f"{path}: the file has no rules; members can be all or network")
        if file.regret is not None and members != "network":
            self._rules = [None if name == NETWORK else make(name) for name in file.regret.members]
            allowed = [index for index, rule in enumerate(self._rules) if members == "all" or rule is not None]
            self._selection = Selection(file.regret, allowed)

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        self.decisions += 1
        selection = self._selection
        choices, observation = None, None
        if selection is not None:
            if selection.is_due(view.now_s):
                choices = Choices.of(request, view, self._choice_set)
                observation = encode(choices)
                selection.update(view, observation)
            rule = self._rules[selection.current]
            if rule is not None:
                self.handed_over += 1
                return rule.place(request, view) or view.default_placement()
        if choices is None or observation is None:
            choices = Choices.of(request, view, self._choice_set)
            observation = encode(choices)
        if self._seen is not None and not self._seen.has(observation):
            self.handed_over += 1
            return FALLBACK.place(request, view)
        return choices.placement(self._actor.act(observation))
