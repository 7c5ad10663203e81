"""`mooncake`: the prefill node with the least predicted TTFT; no deflection (arXiv 2407.00079, Algorithm 1).

TTFT on a prefill node is queue + prefill + transfer. The prefill skips the prefix cached on the node, and the transfer
skips the prefix cached on the decode node. The decode node is the one with the fewest requests, as in the paper. With
`reject`, a request whose predicted TTFT or TBT misses its SLO is rejected (the paper's early rejection, HTTP 429
there).

Adaptations:

- Nodes do not fetch cached prefixes from each other, so the paper's T_transfer, its balancing threshold and the
  migration of hot prefixes do not apply. The transfer here is that of the KV to the decode node, which the paper
  overlaps with the prefill, layer by layer.
- TTFT and TBT come from the step law instead of a fitted model: queue and prefill as for `kairos`; TBT is the decode
  node's next step including this request, by the node's report. The TTFT includes this step, because the first token
  comes out of it here; it is the same for every prefill node.
"""

from math import inf

from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import decode_step_s, prefill_s, queue_wait_s, tokens_to_send


class Mooncake:
    """Prefill on the prefill node with the least predicted TTFT, never on a decode node.

    Args:
        reject: reject requests that are predicted to miss an SLO.
        prefix: take cached tokens into account.
    """

    name = "mooncake"

    def __init__(self, reject: bool = False, prefix: bool = True) -> None:
        self._reject = reject
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request; None rejects it."""
        topology = view.topology
        prompt_tokens = request.prompt_tokens
        budget = topology.token_budget
        decode_node = view.least_loaded_decode_node()
        prefix = self._prefix and view.has_prefix_caches
        to_send = tokens_to_send(request, view, decode_node) if prefix else prompt_tokens
        best_node = -1
        best_s = inf
        for node in topology.prefill_nodes:
            law = topology.laws[node]
            cached = view.prefix_hit_tokens(request, node) if prefix else 0
            ahead = view.report(node).prefill_tokens_ahead
            ttft_s = queue_wait_s(law, ahead, budget, 0.5 * ahead)
            ttft_s += prefill_s(law, prompt_tokens - cached, budget, cached)
            ttft_s += topology.transfer_s(node, decode_node, to_send)
            if ttft_s < best_s:
                best_node = node
                best_s = ttft_s
        if self._reject:
            report = view.report(decode_node)
            batch = min(report.decode_batch + 1, topology.max_seqs)
            tbt_s = decode_step_s(topology.laws[decode_node], batch, report.decode_kv_tokens + prompt_tokens)
            if best_s + tbt_s > request.ttft_slo_s or tbt_s > request.tbt_slo_s:
                return None
        return Placement(best_node, decode_node)
