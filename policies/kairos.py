"""`kairos`: proactive prefill deflection (arXiv 2607.02043, Algorithm 1).

Implemented from the paper's abstract and independent readings, because its code is not public. They leave these points
open:

- Whether the prefill path includes the KV transfer: it does by default; `transfer=false` leaves it out.
- The value of beta: 1.0 by default.
- chi, the chunk of the queue-wait estimate, "the engine's chunk budget (at most the prompt)": by default the budget,
  limited to this prompt's length; with `queue_chunk=budget` always the engine's budget.
- Prompt tokens ahead: the node's report plus the tokens that the router has dispatched to it since.
- Prefix caches: tokens cached on a node are not computed there, also in a chunk plan, and tokens cached on the decode
  node are not sent. chi is limited to the whole prompt, not to its uncached tokens, because it represents the steps of
  the queue.

Under `step_budget="slo"` (not in the paper; chunks are chosen for each step, as in Niyama, arXiv 2503.22562) the engine
chooses the chunks, so a deflection has no chunk plan. It is feasible, as in Algorithm 1, if no step is predicted to
exceed `slo_share` of the strictest TBT SLO on the node. `beta` and `chunk` apply only under "fixed".
"""

from math import inf
from typing import ClassVar

from envs.chunk_plan import CHUNK_CANDIDATES
from envs.cluster import Placement, RequestView, RouterView, prefill_then_decode
from envs.prediction import local_prefill, prefill_s, queue_wait_s, tokens_to_send
from hardware_profiles import InputError


class Kairos:
    """Deflect to a decode node if that is predicted to be about as fast and breaks no running request's TBT SLO.

    Args:
        alpha: deflect if the TTFT there is at most alpha times that on the best prefill node; >= 1.
        beta: share of the strictest TBT SLO among a node's decodes that a step may last, under "fixed"; in (0, 1].
        cap: largest number of deflected prompts in flight per decode node.
        transfer: count the KV transfer on the prefill path.
        queue_chunk: "prompt" or "budget"; see chi in the module's docstring.
        chunk: for ablations under "fixed": tokens of every chunk; 0: the greedy schedule.
        prefix: take cached tokens into account.
    """

    name = "kairos"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (1.0, 1.3, 2.0),
        "beta": (0.9, 1.0),
        "cap": (1, 2, 4),
    }

    def __init__(
        self,
        alpha: float = 1.3,
        beta: float = 1.0,
        cap: int = 1,
        transfer: bool = True,
        queue_chunk: str = "prompt",
        chunk: int = 0,
        prefix: bool = True,
    ) -> None:
        if not 1.0 <= alpha < inf:
            raise InputError(f"kairos: alpha must be a number from 1 on, not {alpha}")
        if not 0.0 < beta <= 1.0:
            raise InputError(f"kairos: beta must be above 0 and at most 1, not {beta}")
        if cap < 1:
            raise InputError(f"kairos: cap must be at least 1, not {cap}")
        if queue_chunk not in ("prompt", "budget"):
            raise InputError(f"kairos: queue_chunk must be prompt or budget, not {queue_chunk}")
        if chunk < 0:
            raise InputError(f"kairos: chunk must be tokens, or 0 for the greedy schedule, not {chunk}")
        self._alpha = alpha
        self._beta = beta
        self._cap = cap
        self._transfer = transfer
        self._queue_chunk = queue_chunk
        self._prefix = prefix
        self._sizes = (chunk,) if chunk else CHUNK_CANDIDATES

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        decode_node = view.least_loaded_decode_node()
        prefill_node, prefill_ttft_s = self._prefill_path(request, view, decode_node)
        limit_s = min(self._alpha * prefill_ttft_s, request.ttft_slo_s)
        best: Placement | None = None
        topology = view.topology
        prefix = self._prefix and view.has_prefix_caches
        for node in topology.decode_nodes:
            if view.counters.deflected_requests[node] >= self._cap:
                continue
            local = local_prefill(
                topology,
                node,
                view.report(node),
                request.prompt_tokens,
                request.tbt_slo_s,
                share=self._beta,
                sizes=self._sizes,
                done_tokens=view.prefix_hit_tokens(request, node) if prefix else 0,
            )
            if local is not None and local.total_s <= limit_s:
                limit_s = local.total_s
                best = Placement(node, node, local.chunks)
        return best if best is not None else prefill_then_decode(prefill_node, decode_node)

    def _prefill_path(self, request: RequestView, view: RouterView, decode_node: int) -> tuple[int, float]:
        """The best prefill node and its predicted TTFT, seconds: queue wait + execution (+ transfer)."""
        topology = view.topology
        prompt_tokens = request.prompt_tokens
        chunk = topology.token_budget
        queue_chunk = min(chunk, prompt_tokens) if self._queue_chunk == "prompt" else chunk
        best_node = -1
        best_s = inf
        law = topology.laws[topology.prefill_nodes[0]]
        execution_s = prefill_s(law, prompt_tokens, chunk)
        prefix = self._prefix and view.has_prefix_caches
        to_send = tokens_to_send(request, view, decode_node) if prefix else prompt_tokens
        for node in topology.prefill_nodes:
            if prefix:
                law = topology.laws[node]
                cached = view.prefix_hit_tokens(request, node)
                execution_s = prefill_s(law, prompt_tokens - cached, chunk, cached)
            elif topology.laws[node] is not law:  # equal nodes share it
                law = topology.laws[node]
                execution_s = prefill_s(law, prompt_tokens, chunk)
            ahead = view.report(node).prefill_tokens_ahead
            ttft_s = queue_wait_s(law, ahead, queue_chunk, 0.5 * ahead) + execution_s
            if self._transfer:
                ttft_s += topology.transfer_s(node, decode_node, to_send)
            if ttft_s < best_s:
                best_node = node
                best_s = ttft_s
        return best_node, best_s
