"""Conditional disaggregation of NVIDIA Dynamo's router: four rules for prefilling a prompt locally.

A rule first chooses the decode node and the prefill node for the prompt. It then decides between a remote prefill on
the prefill node and a local one on the decode node; a local prefill uses chunks of the engine's token budget, without
regard to TBT.

- `dynamo-legacy`: ai-dynamo/dynamo 0.2, examples/llm/components/disagg_router.py and
  docs/architecture/disagg_serving.md. Its defaults are those of Dynamo's class; the sample disagg_router.yaml has 10
  and 2.
- `dynamo-isl`, `dynamo-load`, `dynamo-isl-or-load`: Dynamo's policies isl_bounding, prefill_load and isl_or_load,
  lib/kv-router/src/conditional_disagg.rs, with the thresholds of docs/components/router (2048 tokens and 0.7;
  prefill_busy is router-queue-threshold, 16 there, 4 and 2 in earlier versions).

Both nodes are chosen by the cost function of Dynamo's KV router with weights of 1: the prompt tokens to compute on a
prefill node; on a decode node, the prompt tokens to compute plus the tokens whose KV is in use.

Adaptations:

- In `dynamo-legacy`, idle workers pull prompts from a prefill queue; here prompts are dispatched at once. Every prompt
  on a prefill node except the first counts as being in that queue.
- decode_busy is off by default in Dynamo; here it is 1, which only rules out a node where the prompt's KV would not
  fit. KV use is that of the node's report plus this prompt; Dynamo's router adds up the blocks that it has assigned.
- For a remote prefill, Dynamo chooses the decode node again, without regard to cached prefixes; here it is not changed.

Without prefix caches the whole prompt must be computed (ratio 1), so `dynamo-isl` never prefills locally.
"""

from math import inf
from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError


def _cheapest_decode_node(request: RequestView, view: RouterView, prefix: bool) -> tuple[int, int]:
    """The decode node with the fewest tokens to compute and to hold, and the prompt tokens to compute there."""
    queued = view.counters.queued_prompt_tokens
    held = view.counters.decode_prompt_tokens
    best_node, best_tokens, best_hit = -1, inf, 0
    for node in view.topology.decode_nodes:
        hit = view.prefix_hit_tokens(request, node) if prefix else 0
        tokens = queued[node] + held[node] - hit
        if tokens < best_tokens:
            best_node, best_tokens, best_hit = node, tokens, hit
    return best_node, request.prompt_tokens - best_hit


def _cheapest_prefill_node(request: RequestView, view: RouterView, prefix: bool) -> int:
    """The prefill node with the fewest tokens to compute."""
    queued = view.counters.queued_prompt_tokens
    if not prefix:
        return view.shortest_prefill_queue()
    return min(view.topology.prefill_nodes, key=lambda node: queued[node] - view.prefix_hit_tokens(request, node))


class DynamoLegacy:
    """Prefill remotely if the prompt has many tokens to compute and few prompts wait.

    Args:
        max_local_tokens: a prompt with more tokens to compute than this is prefilled remotely,
        max_queue: unless at least this many prompts wait at the prefill nodes.
        prefix: take cached tokens into account; if not, no token counts as cached.
    """

    name = "dynamo-legacy"
    grid: ClassVar[dict[str, tuple[int, ...]]] = {
        "max_local_tokens": (10, 250, 500, 1000, 2000, 4000),
        "max_queue": (2, 4, 8),
    }

    def __init__(self, max_local_tokens: int = 1000, max_queue: int = 2, prefix: bool = True) -> None:
        if max_local_tokens < 0:
            raise InputError(f"dynamo-legacy: max_local_tokens must be 0 or more, not {max_local_tokens}")
        if max_queue < 0:
            raise InputError(f"dynamo-legacy: max_queue must be 0 or more, not {max_queue}")
        self._max_local_tokens = max_local_tokens
        self._max_queue = max_queue
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        decode_node, to_compute = _cheapest_decode_node(request, view, self._prefix)
        queued = view.counters.queued_prompts
        waiting = sum([max(0, queued[node] - 1) for node in view.topology.prefill_nodes])
        if to_compute > self._max_local_tokens and waiting < self._max_queue:
            return Placement(_cheapest_prefill_node(request, view, self._prefix), decode_node)
        return Placement(decode_node, decode_node)


class _Conditional:
    """Base of the newer rules: prefill locally if the rule applies and the decode node is not busy."""

    name: str

    def __init__(self, eff_isl: int, ratio: float, prefill_busy: float, decode_busy: float, prefix: bool) -> None:
        if eff_isl < 0:
            raise InputError(f"{self.name}: eff_isl must be 0 or more tokens, not {eff_isl}")
        if not 0.0 <= ratio <= 1.0:
            raise InputError(f"{self.name}: ratio must be from 0 to 1, not {ratio}")
        if not prefill_busy >= 0.0:
            raise InputError(f"{self.name}: prefill_busy must be 0 or more, not {prefill_busy}")
        if not 0.0 < decode_busy <= 1.0:
            raise InputError(f"{self.name}: decode_busy must be above 0 and at most 1, not {decode_busy}")
        self._eff_isl = eff_isl
        self._ratio = ratio
        self._prefill_busy = prefill_busy
        self._decode_busy = decode_busy
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        decode_node, to_compute = _cheapest_decode_node(request, view, self._prefix)
        prefill_node = _cheapest_prefill_node(request, view, self._prefix)
        short = to_compute < self._eff_isl and to_compute < self._ratio * request.prompt_tokens
        busy = view.counters.queued_prompt_tokens[prefill_node] > self._prefill_busy * view.topology.token_budget
        if (short or busy) and not self._vetoed(request, view, decode_node):
            return Placement(decode_node, decode_node)
        return Placement(prefill_node, decode_node)

    def _vetoed(self, request: RequestView, view: RouterView, node: int) -> bool:
        """Whether the decode node's KV use, including this prompt, is above the threshold."""
        kv_tokens = view.report(node).kv_used_tokens + request.prompt_tokens
        return kv_tokens > self._decode_busy * view.topology.kv_capacity_tokens[node]


class DynamoISL(_Conditional):
    """Prefill a prompt locally if it is short without its cached prefix, and mostly cached.

    Args:
        eff_isl: the tokens to compute must be fewer than this,
        ratio: and fewer than this share of the prompt.
        decode_busy: no local prefill if more than this share of the decode node's KV would be in use.
        prefix: take cached tokens into account; if not, no token counts as cached.
    """

    name = "dynamo-isl"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "eff_isl": (512, 1024, 2048, 4096, 8192, 16384),
        "ratio": (0.5, 0.7, 0.9),
    }

    def __init__(self, eff_isl: int = 2048, ratio: float = 0.7, decode_busy: float = 1.0, prefix: bool = True) -> None:
        super().__init__(eff_isl, ratio, inf, decode_busy, prefix)


class DynamoLoad(_Conditional):
    """Prefill locally if the prefill node is busy.

    Args:
        prefill_busy: it is busy if its queued prompt tokens exceed this many steps of the engine's token budget.
        decode_busy: no local prefill if more than this share of the decode node's KV would be in use.
        prefix: take cached tokens into account; if not, no token counts as cached.
    """

    name = "dynamo-load"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "prefill_busy": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
        "decode_busy": (0.7, 0.9, 1.0),
    }

    def __init__(self, prefill_busy: float = 16.0, decode_busy: float = 1.0, prefix: bool = True) -> None:
        super().__init__(0, 0.0, prefill_busy, decode_busy, prefix)


class DynamoISLOrLoad(_Conditional):
    """Prefill locally if `dynamo-isl` or `dynamo-load` would; it has the knobs of both."""

    name = "dynamo-isl-or-load"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "eff_isl": (1024, 2048, 4096),
        "prefill_busy": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    }

    def __init__(
        self,
        eff_isl: int = 2048,
        ratio: float = 0.7,
        prefill_busy: float = 16.0,
        decode_busy: float = 1.0,
        prefix: bool = True,
    ) -> None:
        super().__init__(eff_isl, ratio, prefill_busy, decode_busy, prefix)
