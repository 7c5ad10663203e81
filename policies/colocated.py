"""`colocated`: no roles and no transfers; every node serves whole requests (arXiv 2403.02310, Sarathi-Serve; vLLM).

The engine already schedules like the paper: decodes first, then chunks of the waiting prompts within a token budget.
The policy only chooses the node, which the paper leaves open; the definitions of "least load" here are not from it.

Adaptation: Sarathi-Serve chooses the token budget of a step to keep the TBT SLO. Under `step_budget="slo"` the engine
does so for each step, and `chunk` has no effect. Under "fixed" the budget is the cluster's
(`ClusterConfig.token_budget`), the same for every policy, and `chunk` limits the prompt tokens of a step instead, with
one prompt per step. Its default is the paper's budget for a strict SLO.

With prefix caches, the tokens still to be prefilled on a node include this prompt's uncached tokens.
"""

from typing import Any, ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError

DEFAULT_CHUNK_TOKENS = 512
"""Default prompt tokens per step under "fixed": the budget of arXiv 2403.02310 for a strict SLO."""


class Colocated:
    """Prefill and decode on the least loaded of all nodes, whatever their roles.

    Args:
        load: "prefill": fewest prompt tokens still to be prefilled, then fewest unfinished requests; "requests": fewest
            unfinished requests; "tokens": fewest prompt tokens of unfinished requests.
        chunk: largest number of prompt tokens per step, under "fixed" only; 0: the engine's token budget, shared by
            several prompts.
        prefix: take cached tokens into account, with load="prefill".
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
