"""`arrow`: roles that follow the load (arXiv 2505.11916).

Implemented from the abstracts of both versions and the public code of two routers that name the paper as their source.
Its instances are stateless: prefill and decode are labels that a flip changes at once, and what runs on a flipped
instance finishes there. A request's phase goes to the cheapest instance of that phase's pool that meets the SLO; where
none does and the other pool can spare one, an instance is flipped. Cost, in order: what the instance still has of the
other phase, so that one just flipped is taken last, then the predicted time.

- Prefill on node n: TTFT = queue + execution + KV transfer + first decode step, against the request's TTFT SLO. Where n
  still decodes, its prompts are computed in the largest chunk that keeps the residents' TBT SLO (the smallest if none
  does): the source's local scheduler puts decodes first and prefills in chunks. Under `step_budget="slo"` the engine
  chooses the chunks (as DynaServe's local scheduler does, arXiv 2504.09285) and prompts share its steps.
- Decode on node n: the step that n would take with the request beside what decodes there, against its TBT SLO; and its
  KV must fit beside what is held there, and the sequences the engine's limit. Among those that meet it, the one with
  the fewest unfinished requests, those still on their way included, as reports are old and steps grow with each.

What is adapted, and what is ours where the sources leave it open:

- Roles move when a request is placed, never between arrivals: a policy is asked then only. The source also has a
  monitor that runs on its own.
- "Can spare one": each node that stays would do its phase within `low` of the SLO. Prefill: the pool's mean queue wait
  times n / (n - 1). Decode: the step with the pool's sequences and KV shared by n - 1, and the KV they hold in `low` of
  the capacity.
- Which node flips: the prefill node with the shortest queue; the decode node with the fewest unfinished requests, and
  this only where its predicted TTFT is less than that of every prefill node, and where a prompt misses its SLO for the
  queue it meets: for one that would miss it on an idle node nothing is flipped.
- A node that was flipped keeps its role for `cooldown_s`; no pool is ever left empty.
- Where nothing meets the SLO and nothing can be flipped: the least predicted TTFT, the fewest unfinished requests.
- A lost node leaves its pool; a pool that this empties takes a node from the other at once. A clock that goes back is
  a new run, and starts from the cluster's own labels.
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
    """A node as the place for a request's prefill; the lesser is the sooner.

    Attributes:
        ttft_s: predicted TTFT: queue, execution, KV transfer, first decode step.
        queue_s: of it the wait for the queue.
        node: the node.
        chunk: the chunk that its decodes ask for, tokens; 0: the engine decides.
    """

    ttft_s: float
    queue_s: float
    node: int
    chunk: int


class Arrow:
    """The cheapest node of a phase's pool that meets the SLO, and node roles that are flipped when none does.

    Args:
        low: share of its SLO within which the other pool must do without the node that is flipped; in (0, 1].
        cooldown_s: how long a flipped node keeps its new role, seconds; >= 0.
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
        self._labels: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # the cluster's, as last seen
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
        """Start from the cluster's labels in a new run, and let go of the nodes that are gone."""
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
        """Make a decode node a prefill node, if the decode pool can spare one and it would be sooner than `best`."""
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
        """What a prefill on a node would mean, where the first decode step comes `decode_s` after the transfer."""
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
