"""`lmetric`: the least product of tokens to prefill and batch size, and no knob (arXiv 2603.15202, LMetric, OSDI '26).

Implemented from the paper's public description: the score of an instance is the new prefill tokens that it would have
if the request came to it, those of its cached prefix left out, times its batch size, and the least score wins. A
product balances cache affinity against load without a weight between them: weights would cancel in a comparison.

What is adapted, and what is not from the paper where the description leaves it open:

- The rule is for instances that do both phases, so every node is one, whatever its role, as for `colocated`. Nothing is
  sent.
- New prefill tokens: the router's count of prompt tokens queued on the node, and the request's uncached ones.
- Batch size: the router's count of unfinished requests on the node, and this one. Without this one an idle node would
  score 0 whatever its cache lacks.
- Equal scores go to the node with the fewest tokens to prefill, then to the first.
- Chunks are those of `colocated`: under `step_budget="fixed"` of its default size, one prompt per step, since the
  engine's whole token budget next to decodes would exceed a strict TBT SLO; under "slo" the engine's.
"""

from envs.cluster import Placement, RequestView, RouterView
from policies.colocated import DEFAULT_CHUNK_TOKENS


class LMetric:
    """Prefill and decode on the node with the least (prompt tokens queued + to compute) x (requests there + 1).

    Args:
        prefix: take cached tokens into account; for ablations.
    """

    name = "lmetric"

    def __init__(self, prefix: bool = True) -> None:
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        topology = view.topology
        queued = view.counters.queued_prompt_tokens
        unfinished = view.counters.decode_requests
        prefix = self._prefix and view.has_prefix_caches
        prompt_tokens = request.prompt_tokens
        best_node, best = -1, (0, 0)
        for node in topology.prefill_nodes + topology.decode_nodes:
            tokens = queued[node] + (view.uncached_tokens(request, node) if prefix else prompt_tokens)
            score = (tokens * (unfinished[node] + 1), tokens)
            if best_node < 0 or score < best:
                best_node, best = node, score
        plan = (DEFAULT_CHUNK_TOKENS,) if topology.step_budget == "fixed" else ()
        return Placement(best_node, best_node, plan)
