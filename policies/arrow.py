"""`arrow`: node roles that follow the load (arXiv 2505.11916).

Implemented from the abstracts of both versions and the public code of two routers that cite the paper as their source.
Instances are stateless: prefill and decode are labels that a flip changes at once, and the requests on a flipped
instance finish there. Each phase of a request goes to the cheapest instance in that phase's pool that meets the SLO; if
none does and the other pool can spare an instance, that one is flipped. The cost is, in this order, the instance's
remaining work of the other phase (so that a newly flipped instance is used last), and the predicted time.

- Prefill on node n: TTFT = queue + execution + KV transfer + first decode step must be within the request's TTFT SLO.
  If requests still decode on n, its prompts are computed in the largest chunk that keeps their TBT SLO (the smallest if
  none does), because the paper's local scheduler serves decodes first and prefills in chunks. Under `step_budget="slo"`
  the engine chooses the chunks (like DynaServe's local scheduler, arXiv 2504.09285) and prompts share its steps.
- Decode on node n: the step of n including the request must be within its TBT SLO, its KV must fit into the free KV,
  and the batch must be within the engine's limit. Among the nodes that qualify, the one with the fewest unfinished
  requests is chosen, including requests on their way, because reports are old and steps grow with each request.

Adaptations, and choices of this implementation that the sources leave open:

- Roles change only when a request is placed, because a policy is not called between arrivals. The source also has a
  monitor that runs independently.
- A pool can spare a node if each remaining node would do its phase within `low` of the SLO. Prefill: the pool's mean
  queue wait times n / (n - 1). Decode: the step if n - 1 nodes share the pool's requests and KV, which must also fit
  into `low` of the capacity.
- The prefill node with the shortest queue, or the decode node with the fewest unfinished requests, flips. A decode node
  flips only if it would be faster than every prefill node and the SLO miss is caused by queueing. If the prompt would
  miss its SLO even on an idle node, nothing flips.
- A flipped node keeps its role for `cooldown_s`; no pool is ever empty.
- If no node meets the SLO and none can be flipped, the node with the least predicted TTFT, or the fewest unfinished
  requests, is chosen.
- A lost node leaves its pool; if the pool is then empty, it gets a node from the other pool at once. A clock that runs
  backwards indicates a new run, which starts from the cluster's labels.
"""

from math import inf
from typing import ClassVar, NamedTuple

from envs.chunk_plan import CHUNK_CANDIDATES, PLAN_BETA
from envs.cluster import Placement, RequestView, RouterView
from envs.prediction import (
    NodeSteps,
    decode_step_s,
    first_token_s,
    planned_queue_s,
    shared_queue_s,
)
from hardware_profiles import InputError


class _Prefill(NamedTuple):
    """A candidate node for a prefill; candidates compare by predicted TTFT.

    Attributes:
        ttft_s: predicted TTFT: queue, execution, KV transfer, first decode step.
        queue_s: the part of it spent in the queue.
        node: the node.
        chunk: chunk size that its decodes require, tokens; 0: the engine chooses.
    """

    ttft_s: float
    queue_s: float
    node: int
    chunk: int


class Arrow:
    """Use the cheapest node of a phase's pool that meets the SLO, and flip a node's role if there is none.

    Args:
        low: share of the SLO that the other pool must keep without the flipped node; in (0, 1].
        cooldown_s: seconds that a flipped node keeps its new role; >= 0.
    """

    name = "arrow"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "low": (0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
        "cooldown_s": (1.0, 5.0, 20.0),
    }

    def __init__(self, low: float = 0.5, cooldown_s: float = 5.0) -> None:
        if not 0.0 < low <= 1.0:
            raise InputError(f"arrow: low must be above 0 and at most 1, not {low}")
        if not 0.0 <= cooldown_s < inf:
            raise InputError(f"arrow: cooldown_s must be a number of seconds from 0 on, not {cooldown_s}")
        self._low = low
        self._cooldown_s = cooldown_s
        self._labels: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # the cluster's labels when last seen
        self._last_s = -inf
        self._prefill_pool: list[int] = []
        self._decode_pool: list[int] = []
        self._held_until_s: dict[int, float] = {}

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        self._follow(view)
        decode_node, meets = self._decode_node(request, view)
        if not meets and self._flip_to_decode(request, view):
            decode_node, _ = self._decode_node(request, view)
        prefill = self._prefill_node(request, view, decode_node)
        slo_s = request.ttft_slo_s
        if prefill.ttft_s > slo_s >= prefill.ttft_s - prefill.queue_s and self._flip_to_prefill(request, view, prefill):
            decode_node, _ = self._decode_node(request, view)
            prefill = self._prefill_node(request, view, decode_node)
        return Placement(prefill.node, decode_node, (prefill.chunk,) if prefill.chunk else ())

    # ---- roles --------------------------------------------------------------------------------------------------

    def _follow(self, view: RouterView) -> None:
        """Start from the cluster's labels in a new run, and drop lost nodes."""
        topology = view.topology
        labels = (topology.prefill_nodes, topology.decode_nodes)
        now_s = view.now_s
        if now_s < self._last_s or not self._prefill_pool:
            self._labels = labels
            self._prefill_pool, self._decode_pool = list(labels[0]), list(labels[1])
            self._held_until_s.clear()
        elif labels != self._labels:
            self._labels = labels
            there = labels[0] + labels[1]
            self._prefill_pool = [node for node in self._prefill_pool if node in there]
            self._decode_pool = [node for node in self._decode_pool if node in there]
            for pool, other in (
                (self._prefill_pool, self._decode_pool),
                (self._decode_pool, self._prefill_pool),
            ):
                if not pool:
                    pool.append(other.pop())
        self._last_s = now_s

    def _flip(self, node: int, source: list[int], target: list[int], now_s: float) -> None:
        source.remove(node)
        target.append(node)
        target.sort()
        self._held_until_s[node] = now_s + self._cooldown_s

    def _free_to_flip(self, pool: list[int], now_s: float) -> list[int]:
        held = self._held_until_s
        return [node for node in pool if held.get(node, -inf) <= now_s]

    def _flip_to_decode(self, request: RequestView, view: RouterView) -> bool:
        """Make a prefill node a decode node, if the prefill pool can spare one."""
        pool = self._prefill_pool
        free = self._free_to_flip(pool, view.now_s)
        if len(pool) < 2 or not free:
            return False
        waits_s = sum([self._prefill(request, view, node, self._decode_pool[0], 0.0).queue_s for node in pool])
        if waits_s / (len(pool) - 1) > self._low * request.ttft_slo_s:
            return False
        queued = view.counters.queued_prompt_tokens
        self._flip(min(free, key=queued.__getitem__), pool, self._decode_pool, view.now_s)
        return True

    def _flip_to_prefill(self, request: RequestView, view: RouterView, best: _Prefill) -> bool:
        """Make a decode node a prefill node, if the decode pool can spare one and it would be faster than `best`."""
        pool = self._decode_pool
        free = self._free_to_flip(pool, view.now_s)
        stay = len(pool) - 1
        if not stay or not free:
            return False
        topology = view.topology
        counters = view.counters
        reports = [view.report(node) for node in pool]
        batch = 1 + sum([report.decode_batch for report in reports]) // stay
        kv_tokens = request.prompt_tokens + sum([report.decode_kv_tokens for report in reports]) // stay
        kv_used_tokens = request.prompt_tokens + sum([report.kv_used_tokens for report in reports]) // stay
        for node in pool:
            if batch > topology.max_seqs or kv_used_tokens > self._low * topology.kv_capacity_tokens[node]:
                return False
            if decode_step_s(topology.laws[node], batch, kv_tokens) > self._low * request.tbt_slo_s:
                return False
        node = min(free, key=counters.decode_requests.__getitem__)
        target = min([other for other in pool if other != node], key=counters.decode_requests.__getitem__)
        decode_s = first_token_s(view, target, view.report(target), request.prompt_tokens)
        if self._prefill(request, view, node, target, decode_s).ttft_s >= best.ttft_s:
            return False
        self._flip(node, pool, self._prefill_pool, view.now_s)
        return True

    # ---- costs --------------------------------------------------------------------------------------------------

    def _decode_node(self, request: RequestView, view: RouterView) -> tuple[int, bool]:
        """The cheapest node of the decode pool, and whether it meets the TBT SLO."""
        topology = view.topology
        counters = view.counters
        prompt_tokens = request.prompt_tokens
        best: tuple[bool, int, int, int] | None = None
        for node in self._decode_pool:
            report = view.report(node)
            batch = report.decode_batch + 1
            misses = (
                batch > topology.max_seqs
                or report.kv_used_tokens + prompt_tokens > topology.kv_capacity_tokens[node]
                or decode_step_s(topology.laws[node], batch, report.decode_kv_tokens + prompt_tokens)
                > request.tbt_slo_s
            )
            cost = (misses, 0 if misses else counters.queued_prompt_tokens[node], counters.decode_requests[node], node)
            if best is None or cost < best:
                best = cost
        assert best is not None  # no pool is ever empty
        return best[3], not best[0]

    def _prefill_node(self, request: RequestView, view: RouterView, decode_node: int) -> _Prefill:
        """The cheapest node of the prefill pool for a request that decodes on `decode_node`."""
        decode_requests = view.counters.decode_requests
        decode_s = first_token_s(view, decode_node, view.report(decode_node), request.prompt_tokens)
        best: tuple[bool, int, _Prefill] | None = None
        for node in self._prefill_pool:
            prefill = self._prefill(request, view, node, decode_node, decode_s)
            misses = prefill.ttft_s > request.ttft_slo_s
            cost = (misses, 0 if misses else decode_requests[node], prefill)
            if best is None or cost < best:
                best = cost
        assert best is not None  # no pool is ever empty
        return best[2]

    def _prefill(
        self, request: RequestView, view: RouterView, node: int, decode_node: int, decode_s: float
    ) -> _Prefill:
        """Predict a prefill on a node; the first token follows the transfer after `decode_s` seconds."""
        topology = view.topology
        prompt_tokens = request.prompt_tokens
        report = view.report(node)
        steps = NodeSteps(topology, node, report)
        ahead = report.prefill_tokens_ahead
        if steps.batch and topology.step_budget == "fixed":
            chunk = steps.safe_chunk(prompt_tokens, PLAN_BETA * report.tbt_slo_s)
            chunk = chunk or min(CHUNK_CANDIDATES[-1], steps.room)
            queue_s = planned_queue_s(view, node, steps, ahead, chunk)
            ttft_s = queue_s + steps.prefill_s(prompt_tokens, chunk)
        else:
            chunk = 0
            queue_s = shared_queue_s(view, node, steps, ahead)
            ttft_s = queue_s + steps.engine_prefill_s(prompt_tokens)
        ttft_s += topology.transfer_s(node, decode_node, prompt_tokens) + decode_s
        return _Prefill(ttft_s, queue_s, node, chunk)
