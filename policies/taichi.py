"""`taichi`: latency shifting between prefill-heavy and decode-heavy instances (arXiv 2508.01989).

Implemented from the paper's abstract and independent readings of it. All instances do both phases and differ in their
chunk size for prefill: P-heavy ones use a large chunk (slider S_P), D-heavy ones a small one (S_D), and R_PD is the
ratio of their numbers. *Length-aware prefill scheduling* predicts a request's TTFT on every instance as queue +
execution + KV transfer, if one is needed. Short requests go to a D-heavy instance if their predicted TTFT meets the
SLO, which leaves the P-heavy instances to long and urgent requests.

Adaptations, and choices of this implementation that the readings leave open:

- R_PD is the cluster's shape: prefill nodes are P-heavy, decode nodes D-heavy. S_P is the engine's token budget, as for
  every policy here. S_D (`chunk`) does not depend on the decodes in a step, because it is a slider set offline and not
  a limit on single steps. The readings give 128 to 512 tokens as examples. Prompts with a chunk plan do not share steps
  here, so a prompt shorter than S_D takes a separate step, which the prediction includes. Under `step_budget="slo"`,
  the engine's limit by the TBT SLO of the decodes replaces S_D (as in Sarathi-Serve, arXiv 2403.02310).
- Shortest first: the source orders waiting requests by length. Here each request is placed at its arrival, so "short"
  means at most `short` times the mean prompt length of recent requests (the router's slower decaying sums, including
  this request).
- Prefix caches: tokens cached on a node are not computed there, and tokens cached on the decode node are not sent. On a
  decode node, only a prompt's uncached tokens count as its length, because length represents work.
- Memory: the source moves decodes away from a D-heavy instance whose memory use is above a watermark (95 % in an
  example). Decodes do not move here. Instead, a decode node does not prefill a prompt with which its KV would be above
  `watermark`, and the default is lower, because its decodes still grow.
- A long request that would miss its SLO on every prefill node, but not on some decode node, goes to that decode node.
  If it would miss on every node, it goes to the prefill node with the least predicted TTFT, so that no decodes slow
  down.
- *Flowing decode scheduling* (decode on D-heavy instances, move the longest requests to P-heavy ones if memory is
  short, and back when their TPOT is close to its SLO) moves running requests, which this cluster cannot. Its first part
  is kept: every request decodes on a decode node, the least loaded one unless a decode node prefills it.
"""

from math import inf
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import NodeSteps, best_remote, planned_queue_s, shared_queue_s
from hardware_profiles import InputError


class TaiChi:
    """Send short requests to decode nodes if they meet the TTFT SLO there, and the others to prefill nodes.

    Args:
        chunk: S_D, tokens per chunk of a prompt on a decode node, under "fixed" only; >= 1.
        short: length up to which a request is short, relative to the recent mean prompt; > 0; inf: all are short.
        share: share of the TTFT SLO that a predicted TTFT on a decode node may take; > 0.
        watermark: largest share of a decode node's KV in use with a prompt prefilled there; in (0, 1].
        prefix: take cached tokens into account.
    """

    name = "taichi"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "chunk": (128, 256, 512),
        "short": (0.5, 1.0, 2.0),
        "share": (0.5, 1.0),
    }

    def __init__(
        self,
        chunk: int = 256,
        short: float = 1.0,
        share: float = 1.0,
        watermark: float = 0.5,
        prefix: bool = True,
    ) -> None:
        if chunk < 1:
            raise InputError(f"taichi: chunk must be at least 1 token, not {chunk}")
        if not short > 0.0:
            raise InputError(f"taichi: short must be above 0, not {short}")
        if not 0.0 < share < inf:
            raise InputError(f"taichi: share must be a number above 0, not {share}")
        if not 0.0 < watermark <= 1.0:
            raise InputError(f"taichi: watermark must be above 0 and at most 1, not {watermark}")
        self._chunk = chunk
        self._short = short
        self._share = share
        self._watermark = watermark
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        counters = view.counters
        plan = (self._chunk,) if view.topology.step_budget == "fixed" else ()
        prompt_tokens = request.prompt_tokens
        mean_tokens = (counters.tokens_slow + prompt_tokens) / (counters.requests_slow + 1.0)
        local_node, local_s, local_tokens = self._on_decode_node(request, view)
        fits_there = local_s <= self._share * request.ttft_slo_s
        if fits_there and local_tokens <= self._short * mean_tokens:
            return Placement(local_node, local_node, plan)
        decode_node = view.least_loaded_decode_node()
        remote = best_remote(request, view, decode_node, prefix=self._prefix)
        if fits_there and remote.ttft_s > request.ttft_slo_s:
            return Placement(local_node, local_node, plan)
        return Placement(remote.node, decode_node)

    def _on_decode_node(self, request: RequestView, view: RouterView) -> tuple[int, float, int]:
        """The decode node with the least predicted TTFT, this TTFT in seconds, and the tokens to compute there."""
        topology = view.topology
        planned = topology.step_budget == "fixed"
        prompt_tokens = request.prompt_tokens
        prefix = self._prefix and view.has_prefix_caches
        best_node = -1
        best_s = inf
        best_tokens = prompt_tokens
        for node in topology.decode_nodes:
            report = view.report(node)
            if report.kv_used_tokens + prompt_tokens > self._watermark * topology.kv_capacity_tokens[node]:
                continue
            steps = NodeSteps(topology, node, report)
            ahead = report.prefill_tokens_ahead
            cached = view.prefix_hit_tokens(request, node) if prefix else 0
            tokens = prompt_tokens - cached
            if planned:
                chunk = max(1, min(self._chunk, steps.room))
                ttft_s = planned_queue_s(view, node, steps, ahead, chunk)
                ttft_s += steps.prefill_s(tokens, chunk, cached)
            else:
                ttft_s = shared_queue_s(view, node, steps, ahead) + steps.engine_prefill_s(tokens, cached)
            ttft_s += steps.join_s()
            if ttft_s < best_s:
                best_node = node
                best_s = ttft_s
                best_tokens = tokens
        return best_node, best_s, best_tokens
