"""`dynaserve`: a prompt may be split at a token boundary into two segments on two nodes (arXiv 2504.09285).

Implemented from the paper's abstract and independent readings of it. A *micro-request* is one of at most two segments
of a request. A global scheduler chooses the boundary and the two instances by predicted time and load, and each
instance's local scheduler forms batches within the TBT SLO.

A candidate is a prefill node p, a decode node d and a number s of first tokens. P is the number of prompt tokens. From
the reports follow queue(n), the wait for the prompts ahead on n; exec(n, k, s), the time to compute k tokens after s
others on n, next to its decodes; send(s), the transfer of the KV of s tokens; and join(d), half a step of d:

    s = 0       all on d          queue(d) + join(d) + exec(d, P, 0)
    0 < s < P   split             max(queue(p) + exec(p, s, 0) + send(s), queue(d)) + join(d) + exec(d, P - s, s)
    s = P       all on p          queue(p) + exec(p, P, 0) + send(P) + join(d) + the first decode step on d

The candidate with the least TTFT is chosen; on a tie, the one with the fewest tokens on p. On d, tokens are computed in
the largest chunk with which no step, up to the prompt's last, exceeds beta times the strictest TBT SLO of the requests
decoding there; if even the smallest chunk does, d prefills nothing.

Adaptations, and choices of this implementation that the readings leave open:

- The boundary is in the prompt or at its end. In the source it may also be in the output, at a predicted length, which
  routers do not have here; the decodes of d count through its report.
- `splits` boundaries at equal shares of the prompt, rounded to whole KV blocks, are tried. The source searches for a
  boundary that balances the two instances. Here the predicted wait represents the load.
- p is the best prefill node for the whole prompt, because loads of prefill nodes differ by their queues. For s = P, d
  is the least loaded decode node; otherwise every decode node is tried.
- KV moves when the whole first segment is computed. The source sends it chunk by chunk during the computation, so that
  a split costs less there.
- Prefix caches are not taken into account, because the source does not have them.
- Under `step_budget="fixed"` the chunk is fixed when the request is placed. Under "slo" the engine adjusts each batch,
  as the source's local schedulers do; prompts on a node share its steps, and the engine's `slo_share` replaces `beta`.
"""

from math import inf
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import NodeSteps, best_remote, planned_queue_s, shared_queue_s
from hardware_profiles import InputError


class DynaServe:
    """Prefill all, the first part or nothing of a prompt remotely, by least predicted TTFT.

    Args:
        splits: number of boundaries within the prompt to try; 0: only all or nothing.
        beta: share of the strictest TBT SLO on the node that a step may last; in (0, 1].
    """

    name = "dynaserve"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "splits": (1, 3, 7),
        "beta": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    }

    def __init__(self, splits: int = 3, beta: float = 0.9) -> None:
        if splits < 0:
            raise InputError(f"dynaserve: splits must be 0 or more, not {splits}")
        if not 0.0 < beta <= 1.0:
            raise InputError(f"dynaserve: beta must be above 0 and at most 1, not {beta}")
        self._splits = splits
        self._beta = beta

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        topology = view.topology
        prompt_tokens = request.prompt_tokens
        planned = topology.step_budget == "fixed"
        least = view.least_loaded_decode_node()
        source, steps, queue_s, best_s = best_remote(request, view, least, prefix=False)
        best = Placement(source, least)
        # Tuples of s, the time at which the first s tokens are computed, and the bytes of their KV; s = 0 comes first.
        cuts = [(0, 0.0, 0)]
        for number in range(1, self._splits + 1):
            cut = topology.whole_blocks(prompt_tokens * number // (self._splits + 1))
            if cut > cuts[-1][0]:
                computed_s = queue_s + steps.engine_prefill_s(cut)
                cuts.append((cut, computed_s, topology.kv_bytes(cut)))
        for node in topology.decode_nodes:
            report = view.report(node)
            steps = NodeSteps(topology, node, report)
            ahead = report.prefill_tokens_ahead
            if planned:
                tbt_slo_s = report.tbt_slo_s if report.tbt_slo_s < inf else request.tbt_slo_s
                chunk = steps.safe_chunk(prompt_tokens, self._beta * tbt_slo_s)
                if not chunk:
                    continue
                plan: tuple[int, ...] = (chunk,)
                free_s = planned_queue_s(view, node, steps, ahead, chunk)
            else:
                if not steps.engine_prefill(prompt_tokens).keeps:
                    continue
                chunk = 0
                plan = ()
                free_s = shared_queue_s(view, node, steps, ahead)
            joined_s = steps.join_s()
            link = topology.link(source, node)
            for cut, computed_s, kv_bytes in cuts:
                ready_s = computed_s + link.latency_s + kv_bytes / link.bandwidth_bytes_per_s if cut else 0.0
                ttft_s = (ready_s if ready_s > free_s else free_s) + joined_s
                if ttft_s >= best_s:
                    continue
                rest = prompt_tokens - cut
                ttft_s += steps.prefill_s(rest, chunk, cut) if chunk else steps.engine_prefill_s(rest, cut)
                if ttft_s < best_s:
                    best_s = ttft_s
                    best = Placement(source if cut else node, node, plan, cut)
        return best
