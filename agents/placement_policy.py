"""A trained policy file as a placement policy, beside the heuristics."""

from pathlib import Path

from agents.export import load_policy
from agents.layout import Layout
from agents.numpy_policy import NumpyActor
from envs import observation
from envs.candidates import candidates
from envs.cluster import RouterView
from envs.cluster.placement import Placement
from envs.cluster.request import RequestView
from hardware_profiles.errors import InputError


def current_layout() -> Layout:
    """Layout of the observations that envs.observation makes now."""
    return Layout(
        version=observation.LAYOUT_VERSION,
        request=tuple(observation.REQUEST_FEATURES),
        global_=tuple(observation.GLOBAL_FEATURES),
        nodes=tuple(observation.NODE_FEATURES),
    )


class LearnedPolicy:
    """Places each request on the node that the trained network scores highest. It draws nothing at random.

    Args:
        path: a policy file.

    Raises:
        InputError: the file cannot be used; names it and says why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        file = load_policy(self.path)
        if file.layout != current_layout():
            raise InputError(
                f"{path}: trained on observation layout {file.layout.version}, this version makes layout "
                f"{current_layout().version}; train it again"
            )
        self.training = file.training
        self._actor = NumpyActor(file.weights)

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Choose where `request` is prefilled, from what the router can see."""
        found = candidates(request, view)
        return found[self._actor.act(observation.encode_candidates(request, view, found))].placement
