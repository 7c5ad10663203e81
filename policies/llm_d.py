"""`llm-d`: choose the decode node first, and a prefill node unless almost all of the prompt is cached there.

The source is llm-d/llm-d-router (formerly llm-d-inference-scheduler): prefix_based_pd_decider.go and the plugins of its
sample deploy/config/pd-epp-config.yaml. The sample's threshold is 16 uncached tokens. Its scorers have weight 2 for the
cached share of the prompt and weight 1 for the queue, whose score is 1 for the shortest and 0 for the longest.

Adaptations: queues are the router's own counts (prompts not yet prefilled on prefill nodes, unfinished requests on
decode nodes) instead of the engines' metrics of waiting requests. A tie goes to the first node instead of a random one.
A local prefill has no regard to TBT: the engine chooses its chunks.
"""

from collections.abc import Sequence
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError
from policies.prefix_score import best_by_score

_PREFIX_WEIGHT = 2.0  # the queue has weight 1


class LlmD:
    """Prefill on a prefill node if enough of the prompt is not cached on the decode node.

    Args:
        uncached_tokens: smallest number of uncached tokens for a prefill on a prefill node; 0: never, as in llm-d.
        prefix: take cached tokens into account; if not, no token counts as cached.
    """

    name = "llm-d"
    grid: ClassVar[dict[str, tuple[int, ...]]] = {
        "uncached_tokens": (
            *(0, 16, 64, 128, 192, 256, 384, 512, 768),
            *(1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
        ),
    }

    def __init__(self, uncached_tokens: int = 16, prefix: bool = True) -> None:
        if uncached_tokens < 0:
            raise InputError(f"llm-d: uncached_tokens must be 0 or more, not {uncached_tokens}")
        self._uncached_tokens = uncached_tokens
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        topology = view.topology
        counters = view.counters
        decode_node, cached = self._best(topology.decode_nodes, counters.decode_requests, request, view)
        if not 0 < self._uncached_tokens <= request.prompt_tokens - cached:
            return Placement(decode_node, decode_node)
        prefill_node, _ = self._best(topology.prefill_nodes, counters.queued_prompts, request, view)
        return Placement(prefill_node, decode_node)

    def _best(self, nodes: Sequence[int], queues: list[int], request: RequestView, view: RouterView) -> tuple[int, int]:
        return best_by_score(nodes, queues, request, view, prefix_weight=_PREFIX_WEIGHT, prefix=self._prefix)
