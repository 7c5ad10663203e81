"""Trained policies as placement policies with the same interface as rules."""

from pathlib import Path
from typing import cast

from agents.cost_policy import CostPolicy
from agents.layout import Layout
from agents.numpy_policy import NumpyActor
from agents.own_view import OwnView, trained_evenly
from agents.policy_file import load_policy
from agents.seen import SeenRange
from agents.selection import NETWORK, Selection
from envs.choices import CHOICE_SETS, Choices, ChoiceSet
from envs.cluster import Placement, Policy, RequestView, RouterView
from envs.features import CHOICE_FEATURES, GLOBAL_FEATURES, REQUEST_FEATURES
from envs.observation import LAYOUT_VERSION, encode
from hardware_profiles.errors import InputError
from policies import make
from policies.shortest_ttft import ShortestTTFT

MEMBERS = ("all", "network", "rules", "costs")
"""The members of a portfolio that may place requests."""

ROLES = ("trained", "given")
"""Whose division into prefill and decode nodes a policy uses."""

SPEEDS = ("measured", "given")
"""Which speeds of nodes a policy assumes."""

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


class NetworkPolicy:
    """Uses the choice with the highest score of a trained network, or FALLBACK.

    FALLBACK decides where the request or the cluster is unlike all that the network has seen in training
    (`agents.seen.SeenRange`).

    Attributes:
        name: "network".
        handed_over: decisions of FALLBACK.

    Args:
        actor: scores the choices.
        choice_set: the choices.
        seen: range of the inputs in training; None: the network decides everywhere.
    """

    name = NETWORK

    def __init__(self, actor: NumpyActor, choice_set: ChoiceSet, seen: SeenRange | None) -> None:
        self._actor = actor
        self._choice_set = choice_set
        self._seen = seen
        self.handed_over = 0

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        choices = Choices.of(request, view, self._choice_set)
        observation = encode(choices)
        if self._seen is not None and not self._seen.has(observation):
            self.handed_over += 1
            return FALLBACK.place(request, view)
        return choices.placement(self._actor.act(observation))


class LearnedPolicy:
    """A trained policy: the network of a file, or its portfolio. It is deterministic.

    If the file has a portfolio, the member with the least expected regret places the requests: the network, one of the
    costs, or one of the rules (`agents.selection`).

    Attributes:
        decisions: all decisions.

    Args:
        path: a policy file.
        guard: whether FALLBACK may decide instead of the network, and costs leave room for requests on their way
            (`envs.crowding`).
        members: "network", "rules" and "costs" leave out the other members of the portfolio, the name of a cost all
            others.
        roles: "trained": if all clusters in training were evenly divided into prefill and decode nodes, any cluster is
            (`agents.own_view`). "given": nodes have the roles of the cluster.
        speeds: "measured": predictions are made with the speeds that the router has measured. "given": with those that
            it was told.
        feedback: whether members that miss more SLOs than expected are selected less (`agents.experience`), if the file
            has expectations.

    Raises:
        InputError: the file cannot be used; the message names the file and the reason.
    """

    def __init__(
        self,
        path: str | Path,
        guard: bool = True,
        members: str = "all",
        roles: str = "trained",
        speeds: str = "measured",
        feedback: bool = True,
    ) -> None:
        self.name = Path(path).stem
        for knob, value, values in (("roles", roles, ROLES), ("speeds", speeds, SPEEDS)):
            if value not in values:
                raise InputError(f"{path}: {knob} must be {' or '.join(values)}, not {value!r}")
        file = load_policy(Path(path))
        choice_set = file.layout.choice_set
        if choice_set not in CHOICE_SETS or file.layout != current_layout(choice_set):
            raise InputError(
                f"{path}: trained on observation layout {file.layout.version} of {choice_set}, but this version has "
                f"layout {LAYOUT_VERSION} of {', '.join(CHOICE_SETS)}; train it again"
            )
        self.training = file.training
        self._own_view = OwnView(
            roles=roles == "trained" and trained_evenly(file.training), speeds=speeds == "measured"
        )
        features = (*file.layout.request, *file.layout.global_)
        unguarded = [features.index(name) for name in UNGUARDED]
        seen = file.seen.without(unguarded) if guard and file.seen is not None else None
        self._network = NetworkPolicy(NumpyActor(file.weights), cast(ChoiceSet, choice_set), seen)
        self._costs = file.costs
        self._guard = guard
        self._of_rules = self.decisions = 0
        self._puts_off = False
        self._put_off: list[tuple[RequestView, RouterView]] = []
        names = file.regret.members if file.regret is not None else (NETWORK, *file.costs)
        if members not in (*MEMBERS, *file.costs):
            raise InputError(f"{path}: members must be {', '.join((*MEMBERS, *file.costs))}, not {members!r}")
        allowed = [index for index, name in enumerate(names) if members in ("all", self._kind(name), name)]
        if not allowed or (file.regret is None and members == "costs"):
            raise InputError(f"{path}: the file selects among no {members}; members can be all or network")
        self._members = [self._member(name) for name in names]
        self._first = self._members[allowed[0]]
        self._selection: Selection | None = None
        if file.regret is not None and members not in names:
            self._selection = Selection(file.regret, allowed, feedback)

    @property
    def handed_over(self) -> int:
        """Decisions that a published rule made."""
        return self._of_rules + self._network.handed_over

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        self.decisions += 1
        view = self._own_view.of(request, view)
        member = self._first
        if self._selection is not None:
            if self._puts_off and self._selection.began:
                self._put_off.append((request, view))
            else:
                self._selection.select(request, view)
            member = self._members[self._selection.current]
        if not isinstance(member, NetworkPolicy | CostPolicy):
            self._of_rules += 1
        return member.place(request, view) or view.default_placement()

    def put_in_use(self) -> None:
        """Answer as fast as possible from now on: for a router that is in use, which calls `catch_up`.

        A change of the member takes effect with the next request.
        """
        self._puts_off = True

    def catch_up(self) -> None:
        """Do what decisions have put off; called when their requests have been sent."""
        put_off, self._put_off = self._put_off, []
        for request, view in put_off:
            assert self._selection is not None
            self._selection.select(request, view)

    def _member(self, name: str) -> Policy:
        """A member of the portfolio."""
        if name == NETWORK:
            return self._network
        return CostPolicy(name, self._costs[name], self._guard) if name in self._costs else make(name)

    def _kind(self, name: str) -> str:
        """Which of MEMBERS a member belongs to."""
        if name == NETWORK:
            return NETWORK
        return "costs" if name in self._costs else "rules"
