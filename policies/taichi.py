"""`taichi`: latency shifting between prefill-heavy and decode-heavy instances (arXiv 2508.01989).

Implemented from the paper's abstract and independent readings of it. Its instances all do both phases and differ in
the chunk they prefill by: P-heavy ones use a large chunk (slider S_P), D-heavy ones a small one (S_D), and R_PD is how
many there are of each. Its *length-aware prefill scheduling* predicts a request's TTFT on every instance as queue +
execution + KV transfer where one is needed; short requests go to a D-heavy instance where their projected TTFT still
meets the SLO, which keeps the P-heavy ones for the long and the urgent.

What is adapted, and what is ours where the readings leave it open:

- R_PD is the cluster's shape: prefill nodes are P-heavy, decode nodes D-heavy. S_P is the engine's token budget, as
  for every rule here. S_D (`chunk`) stays the same whatever decodes beside it: it is a slider set offline, and no
  guard on a single step. The readings name 128 to 512 tokens as examples. Prompts with a chunk plan do not share steps
  here, so a prompt shorter than S_D has a step to itself, which the projection counts. Under `step_budget="slo"` S_D is
  instead the engine's bound, which follows the TBT SLO of what decodes (as in Sarathi-Serve, arXiv 2403.02310).
- Shortest first: the source orders the requests that wait at the scheduler by length. Here each is placed alone when
  it arrives, so "short" is a length of at most `short` times the mean prompt of those that arrived lately
  (the router's slower fading sums, this request included).
- Prefix caches: tokens cached on a node are not computed there, and those cached on the decode node are not sent. For a
  decode node, a prompt is as long as what it leaves to compute, since length stands for work.
- Memory: the source moves decodes away from a D-heavy instance whose memory passes a watermark (95 %, in an example).
  Nothing moves here, so instead a decode node on which a prompt would pass `watermark` is not given it to prefill, and
  the default is lower: what decodes there still grows.
- A long request that would miss its SLO on every prefill node, and not on some decode node, goes to that one. Where
  every node misses, the prefill node that is predicted to miss by least has it, so that residents are spared.
- *Flowing decode scheduling* (decode on D-heavy instances, move the longest to P-heavy ones when memory is short, and
  back when their TPOT nears its SLO) needs a running sequence to move, which this cluster does not do. Its first part
  is kept: every request decodes on a decode node, the least-loaded one where it is not prefilled on one.
"""

from math import inf
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import NodeSteps, best_remote, planned_queue_s, shared_queue_s
from hardware_profiles import InputError


class TaiChi:
    """Short requests to decode nodes where that still meets the TTFT SLO, the others to prefill nodes.

    Args:
        chunk: S_D, tokens that a prompt on a decode node is prefilled by, under "fixed" only; >= 1.
        short: what counts as short, in mean prompts of late; > 0, and inf takes every request for short.
        share: share of the TTFT SLO that a projected TTFT on a decode node may take; > 0.
        watermark: share of a decode node's KV capacity that a prompt prefilled there may fill it to; in (0, 1].
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
        """The decode node with the least projected TTFT, that in seconds, and the tokens to compute there."""
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
