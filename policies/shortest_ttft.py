"""`shortest-ttft`: the simplest use of the environment's own predictions; ours, from no paper."""

from typing import ClassVar

from envs.candidates import candidates
from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError


class ShortestTTFT:
    """Prefill where the predicted TTFT is smallest, among the nodes that break no running stream's TBT SLO.

    A learned policy must beat it to have learned anything beyond its features. Under `step_budget="slo"` the engine
    chooses the chunks of a deflection (Sarathi-Serve's stall-free batching, arXiv 2403.02310, with a budget for each
    step), and a node is left out if even the smallest chunk would break the SLO.

    Args:
        alpha: a deflection is taken when its TTFT is at most alpha times the best prefill node's.
        prefix: take cached tokens into account: they are neither computed nor sent.
    """

    name = "shortest-ttft"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (
            *(0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
            *(1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0),
        ),
    }

    def __init__(self, alpha: float = 1.0, prefix: bool = True) -> None:
        if not 0.0 < alpha < float("inf"):
            raise InputError(f"shortest-ttft: alpha must be above 0, not {alpha}")
        self._alpha = alpha
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        first_decode_node = view.topology.first_decode_node
        found = candidates(request, view, prefix=self._prefix)
        best = min(found[:first_decode_node], key=lambda choice: choice.ttft_s)
        deflections = [choice for choice in found[first_decode_node:] if choice.feasible]
        if deflections:
            deflection = min(deflections, key=lambda choice: choice.ttft_s)
            if deflection.ttft_s <= self._alpha * best.ttft_s:
                best = deflection
        return best.placement
