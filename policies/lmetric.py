"""`lmetric`: the least product of tokens to prefill and batch size; no knobs (arXiv 2603.15202, LMetric, OSDI '26).

Implemented from the paper's public description. The score of an instance is the number of prefill tokens that it would
have with the request, without the cached prefix, times its batch size; the least score wins. The product balances cache
affinity and load without a weight, because a weight would cancel out in the comparison.

Adaptations, and choices of this implementation that the description leaves open:

- The rule is for instances that do both phases, so every node is a candidate, whatever its role, as for `colocated`. No
  KV is sent.
- Prefill tokens: the router's count of prompt tokens queued on the node, plus the request's uncached tokens.
- Batch size: the router's count of unfinished requests on the node, plus this one. Without this one an idle node would
  score 0, whatever it would have to compute.
- A tie goes to the node with the fewest tokens to prefill, then to the first.
- Chunks are those of `colocated`. Under `step_budget="fixed"` they have its default size, with one prompt per step,
  because the engine's whole token budget next to decodes would exceed a strict TBT SLO; under "slo" the engine chooses
  them.
"""

from envs.cluster import Placement, RequestView, RouterView
from policies.colocated import DEFAULT_CHUNK_TOKENS


class LMetric:
    """Prefill and decode on the node with the least (prompt tokens queued + to compute) x (requests + 1).

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
