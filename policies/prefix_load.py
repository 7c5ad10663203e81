"""`prefix-load`: choose each node by a weighted score of cached prefix and load; never deflect.

The scores are those of llm-d (llm-d/llm-d-router, its prefix-cache scorer and queue scorer): the cached share of the
prompt times a weight, plus a load score that is 1 for the least and 0 for the greatest load. In llm-d's sample
configurations the prefix has weight 2 or 3 and the queue weight 1 or 2. Only the ratio matters, so here the load has
weight 1. With a large weight the prefix alone decides, as in vLLM production-stack's prefix-aware routing
(vllm-project/production-stack, PrefixAwareRouter: the instance with the longest match); with weight 0 the load alone
decides.

Differences from these sources:

- Each phase has a separate weight. llm-d's decode and prefill profiles may differ too, but its samples use equal
  weights.
- The load of a prefill node is by default its queued prompt tokens; llm-d counts waiting requests (`load=requests`).
  The load of a decode node is its unfinished requests. Both are the router's own up-to-date counts instead of engines'
  metrics.
- Cached prefixes are those that nodes have reported. llm-d's approximate scorer and production-stack remember where
  they sent prompts; production-stack assumes that they stay cached forever.
- A tie goes to the first node instead of a random one.
"""

from math import inf
from typing import Any, ClassVar

from envs.cluster import Placement, RequestView, RouterView, prefill_then_decode
from hardware_profiles import InputError
from policies.prefix_score import best_by_score


class PrefixLoad:
    """Prefill and decode on nodes with much of the prompt cached and a low load.

    Args:
        prefill_weight: weight of the cached share on a prefill node, relative to 1 for the load; >= 0.
        decode_weight: the same on a decode node.
        load: load of a prefill node: "tokens": its queued prompt tokens; "requests": its queued prompts.
        prefix: take cached tokens into account.
    """

    name = "prefix-load"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "prefill_weight": (0.5, 1.0, 2.0, 4.0, 8.0),
        "decode_weight": (0.0, 0.5, 2.0),
        "load": ("tokens", "requests"),
    }

    def __init__(
        self, prefill_weight: float = 2.0, decode_weight: float = 2.0, load: str = "tokens", prefix: bool = True
    ) -> None:
        for knob, weight in (("prefill_weight", prefill_weight), ("decode_weight", decode_weight)):
            if not 0.0 <= weight < inf:
                raise InputError(f"prefix-load: {knob} must be a number from 0 on, not {weight}")
        if load not in ("tokens", "requests"):
            raise InputError(f"prefix-load: load must be tokens or requests, not {load}")
        self._prefill_weight = prefill_weight
        self._decode_weight = decode_weight
        self._load = load
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        topology = view.topology
        counters = view.counters
        queues = counters.queued_prompt_tokens if self._load == "tokens" else counters.queued_prompts
        prefill_node, _ = best_by_score(
            topology.prefill_nodes,
            queues,
            request,
            view,
            prefix_weight=self._prefill_weight,
            prefix=self._prefix,
        )
        decode_node, _ = best_by_score(
            topology.decode_nodes,
            counters.decode_requests,
            request,
            view,
            prefix_weight=self._decode_weight,
            prefix=self._prefix,
        )
        return prefill_then_decode(prefill_node, decode_node)
