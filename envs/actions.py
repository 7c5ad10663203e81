"""From an action of the environment to a placement."""

from envs.candidates import candidate
from envs.cluster import Placement, RequestView, RouterView


def placement_for(action: int, request: RequestView, view: RouterView) -> Placement:
    """The placement that choosing node `action` means.

    A prefill node: prefill there, decode on the least-loaded decode node. A decode node: deflect there, with the
    largest TBT-safe chunks, or the smallest if none is safe; under `step_budget="slo"` in the engine's.
    """
    return candidate(action, request, view).placement
