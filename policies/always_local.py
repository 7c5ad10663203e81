"""`always-local`: no use of the prefill nodes at all."""

from envs.actions import placement_for
from envs.cluster import Placement, RequestView, RouterView


class AlwaysLocal:
    """Prefill on the least-loaded decode node, in TBT-safe chunks or, if none is safe, the smallest.

    The bound on what deflection alone can do, and a check on it: prefill nodes stand idle. Under `step_budget="slo"`
    there is no plan and the engine bounds each step (as in Sarathi-Serve, arXiv 2403.02310).
    """

    name = "always-local"

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        return placement_for(view.least_loaded_decode_node(), request, view)
