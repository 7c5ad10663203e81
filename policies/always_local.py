"""`always-local`: no use of the prefill nodes at all."""

from envs.cluster import ClusterView, Placement, RequestView
from envs.predict import plan_chunks


class AlwaysLocal:
    """Prefill on the least-loaded decode node, in TBT-safe chunks or, where none is safe, the smallest.

    The bound on what deflection alone can do, and a check on it: prefill nodes stand idle.
    """

    name = "always-local"

    def place(self, request: RequestView, view: ClusterView) -> Placement:
        """Place one request."""
        node = view.least_loaded_decode_node()
        report = view.report(node)
        plan = plan_chunks(
            view.topology.laws[node],
            request.prompt_tokens,
            report.decode_batch,
            report.decode_kv_tokens,
            min(report.tbt_slo_s, request.tbt_slo_s),
            view.topology.token_budget,
            smallest_if_none=True,
        )
        assert plan is not None
        return Placement(node, node, plan.chunks)
