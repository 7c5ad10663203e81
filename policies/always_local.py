"""`always-local`: the prefill nodes are not used at all."""

from envs.cluster import Placement, RequestView, RouterView
from envs.outlook import PrefillOutlook
from envs.prediction import NodeSteps


class AlwaysLocal:
    """Prefill on the least loaded decode node, in TBT-safe chunks or, if none is safe, in the smallest ones.

    It shows what deflection alone achieves, because prefill nodes are idle. Under `step_budget="slo"` there is no chunk
    plan, and the engine limits each step (as in Sarathi-Serve, arXiv 2403.02310).
    """

    name = "always-local"

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        node = view.least_loaded_decode_node()
        report = view.report(node)
        steps = NodeSteps(view.topology, node, report)
        hit = view.prefix_hit_tokens(request, node)
        return Placement(node, node, PrefillOutlook(node, request, view, report, steps, hit).chunk_plan)
