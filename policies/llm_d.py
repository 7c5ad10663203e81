"""`llm-d`: the decode node first, then a prefill node unless next to nothing is left to compute.

llm-d/llm-d-router (formerly llm-d-inference-scheduler): prefix_based_pd_decider.go and the plugins of its sample
deploy/config/pd-epp-config.yaml, whose threshold is 16 uncached tokens and whose scorers weigh 2 for the share of the
prompt that is cached and 1 for the queue: 1 where it is shortest, 0 where it is longest.

Adapted: queues are the router's own counts, prompts not yet prefilled on prefill nodes and unfinished requests on
decode nodes, instead of what the engines' metrics say of waiting requests. Equal scores go to the first node, not to
one at random. A local prefill has no TBT guard: its chunks are the engine's.
"""

from collections.abc import Sequence
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError
from policies.prefix_score import best_by_score

_PREFIX_WEIGHT = 2.0  # against 1 for the queue


class LlmD:
    """Disaggregate where enough of the prompt is not cached on the decode node.

    Args:
        uncached_tokens: from this many tokens on the prompt is prefilled on a prefill node; 0: never, as in llm-d.
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
