"""`colocated`: no roles, no transfers; every node serves whole requests (arXiv 2403.02310, Sarathi-Serve; vLLM).

The engine is the paper's already: decodes first, then chunks of the waiting prompts within a token budget. What is left
to a policy is which node, which the paper does not settle; what "least load" means is ours.

Adapted: Sarathi-Serve fits the token budget of a step to the TBT SLO. So does the engine under `step_budget="slo"`,
step by step, and `chunk` has no effect there. Under "fixed" the budget is the cluster's (`ClusterConfig.token_budget`),
the same under every policy, and `chunk` bounds the prompt tokens of a step instead, of one prompt per step. Its default
is the paper's budget for a strict SLO.

With prefix caches, the tokens still to be prefilled on a node include this prompt's, without those cached there.
"""

from typing import Any, ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError

DEFAULT_CHUNK_TOKENS = 512
"""Prompt tokens of a step under "fixed", unless a knob says otherwise: arXiv 2403.02310's budget for a strict SLO."""


class Colocated:
    """Prefill and decode on the least-loaded of all nodes; the cluster's roles are of no account.

    Args:
        load: "prefill": fewest prompt tokens still to be prefilled, then fewest unfinished requests; "requests": fewest
            unfinished requests; "tokens": fewest prompt tokens of unfinished requests.
        chunk: prompt tokens of a step at most, under "fixed" only; 0: what the engine's token budget leaves, of several
            prompts.
        prefix: take cached tokens into account, under load="prefill".
    """

    name = "colocated"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "load": ("prefill", "requests", "tokens"),
        "chunk": (0, 256, 512, 768, 1024, 1536),
    }

    def __init__(self, load: str = "prefill", chunk: int = DEFAULT_CHUNK_TOKENS, prefix: bool = True) -> None:
        if load not in ("prefill", "requests", "tokens"):
            raise InputError(f"colocated: load must be prefill, requests or tokens, not {load}")
        if chunk < 0:
            raise InputError(f"colocated: chunk must be 0 or more tokens, not {chunk}")
        self._load = load
        self._prefix = prefix
        self._chunk_plan = (chunk,) if chunk else ()

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        counters = view.counters
        nodes = view.topology.prefill_nodes + view.topology.decode_nodes
        if self._load == "prefill" and self._prefix and view.has_prefix_caches:
            tokens = counters.queued_prompt_tokens
            node = min(nodes, key=lambda n: (tokens[n] + view.uncached_tokens(request, n), counters.decode_requests[n]))
        elif self._load == "prefill":
            node = min(nodes, key=lambda n: (counters.queued_prompt_tokens[n], counters.decode_requests[n]))
        elif self._load == "requests":
            node = min(nodes, key=counters.decode_requests.__getitem__)
        else:
            node = min(nodes, key=counters.decode_prompt_tokens.__getitem__)
        return Placement(node, node, self._chunk_plan if view.topology.step_budget == "fixed" else ())
