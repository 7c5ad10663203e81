"""`mooncake`: the smallest predicted TTFT by the prefill path, and no other path (arXiv 2407.00079, Algorithm 1).

TTFT on a prefill node is queue + prefill + transfer. The prefill starts after the prefix that the node has cached, the
transfer leaves out the one that the decode node has. The decode node is the one with the fewest requests, the paper's
load balancing. With `reject`, a request whose predicted TTFT or TBT misses its SLO is not taken in (the paper's early
rejection; HTTP 429 there).

Adapted:

- Nodes do not fetch cached prefixes from each other, so the paper's T_transfer, its balancing threshold and the
  migration of hot prefixes have no place here. The transfer counted is that of the KV to the decode node, which the
  paper hides behind the prefill, layer by layer.
- TTFT and TBT come from the step law in place of a fitted model: queue and prefill as for `kairos`; TBT is the decode
  node's next step with this request in it, by the node's report. That step also ends the TTFT, for here the first token
  comes out of it; it is the same for every prefill node.
"""

from math import inf

from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import decode_step_s, prefill_s, queue_wait_s, tokens_to_send


class Mooncake:
    """Prefill on the prefill node with the smallest predicted TTFT, never on a decode node.

    Args:
        reject: do not take in what is predicted to miss an SLO.
        prefix: take cached tokens into account.
    """

    name = "mooncake"

    def __init__(self, reject: bool = False, prefix: bool = True) -> None:
        self._reject = reject
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request; None: it is rejected."""
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
