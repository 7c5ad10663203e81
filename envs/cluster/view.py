"""What a router sees of the cluster when it must place a request."""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from envs.cluster.clock import Clock
from envs.cluster.engine import Engine
from envs.cluster.prefix_cache import PrefixCache
from envs.cluster.request import RequestView
from envs.cluster.spans import whole_steps_within
from envs.cluster.topology import Topology


class NodeReport(NamedTuple):
    """A node as it was `report_age_s` ago.

    Attributes:
        decode_batch: sequences decoding.
        decode_kv_tokens: their summed context.
        prefill_tokens_ahead: prompt tokens that a prompt sent now would wait for: those the node had not computed at
            the time of the report, and those dispatched to it since, which the router knows without a report.
        kv_used_tokens: KV held or reserved when the node's scheduler last ran, and what its decodes have added since.
        tbt_slo_s: strictest TBT SLO among the decoding sequences, inf where there are none.
    """

    decode_batch: int
    decode_kv_tokens: int
    prefill_tokens_ahead: int
    kv_used_tokens: int
    tbt_slo_s: float


def read_report(engine: Engine, at_s: float) -> NodeReport:
    """A node's report as of `at_s`, which may lie `Engine.history_s` back."""
    history = engine.history
    i = len(history) - 1
    while i and history[i][0] > at_s:
        i -= 1
    start_s, steps, first_s, growth_s, batch, kv_tokens, chunk, computed, kv_used, tbt_slo_s = history[i]
    if steps and at_s > start_s:
        done = whole_steps_within(at_s - start_s, steps, first_s, growth_s)
        grown = done * batch
        kv_tokens += grown
        kv_used += grown
        computed += done * chunk
    return tuple.__new__(NodeReport, (batch, kv_tokens, engine.enqueued_tokens - computed, kv_used, tbt_slo_s))


_FAST_S, _SLOW_S = 1.0, 10.0


class Counters:
    """What the router counts by itself, from its own dispatches and the answers it relays; always fresh.

    Attributes:
        queued_prompts: per node, prompts dispatched there whose prefill has not ended.
        queued_prompt_tokens: their tokens.
        decode_requests: per node, requests that decode there and are not finished, those still in prefill included.
        decode_prompt_tokens: their prompt tokens.
        deflected_requests: per node, deflected prompts dispatched there whose first token is not out.
        last_arrival_s: when the latest request was placed.
        requests_fast, requests_slow, tokens_fast, tokens_slow: see `recent_requests` and `recent_prompt_tokens`.
    """

    RECENT_S = (_FAST_S, _SLOW_S)

    __slots__ = (
        "decode_prompt_tokens",
        "decode_requests",
        "deflected_requests",
        "last_arrival_s",
        "queued_prompt_tokens",
        "queued_prompts",
        "requests_fast",
        "requests_slow",
        "tokens_fast",
        "tokens_slow",
    )

    def __init__(self, nodes: int) -> None:
        self.queued_prompts = [0] * nodes
        self.queued_prompt_tokens = [0] * nodes
        self.decode_requests = [0] * nodes
        self.decode_prompt_tokens = [0] * nodes
        self.deflected_requests = [0] * nodes
        self.last_arrival_s = 0.0
        self.requests_fast = self.requests_slow = 0.0
        self.tokens_fast = self.tokens_slow = 0.0

    def copy(self) -> "Counters":
        """An independent copy."""
        twin = Counters(0)
        for name in Counters.__slots__:
            value = getattr(self, name)
            setattr(twin, name, value.copy() if isinstance(value, list) else value)
        return twin

    def count_arrival(self, now_s: float, prompt_tokens: int) -> None:
        """Count a request in the fading sums."""
        ago_s = self.last_arrival_s - now_s
        self.last_arrival_s = now_s
        fast = exp(ago_s / _FAST_S)
        slow = exp(ago_s / _SLOW_S)
        self.requests_fast = self.requests_fast * fast + 1.0
        self.requests_slow = self.requests_slow * slow + 1.0
        self.tokens_fast = self.tokens_fast * fast + prompt_tokens
        self.tokens_slow = self.tokens_slow * slow + prompt_tokens

    @property
    def recent_requests(self) -> tuple[float, float]:
        """Requests placed, each fading by 1/e in each of `RECENT_S` seconds, as of `last_arrival_s`."""
        return self.requests_fast, self.requests_slow

    @property
    def recent_prompt_tokens(self) -> tuple[float, float]:
        """Their prompt tokens, fading alike."""
        return self.tokens_fast, self.tokens_slow


def first_least(nodes: Sequence[int], values: Sequence[float]) -> int:
    """The node with the least value, the first of equals; three times as fast as `min` with a key on two nodes."""
    best = nodes[0]
    least = values[best]
    for node in nodes:
        if values[node] < least:
            best = node
            least = values[node]
    return best


class ClusterView:
    """The cluster as its router sees it now; what it shows moves on with the cluster.

    Attributes:
        topology: what never changes.
        counters: the router's own counts, fresh.
    """

    __slots__ = ("_caches", "_clock", "_engines", "_report_age_s", "counters", "topology")

    def __init__(
        self,
        clock: Clock,
        topology: Topology,
        counters: Counters,
        engines: Sequence[Engine],
        report_age_s: float,
        caches: Sequence[PrefixCache] = (),
    ) -> None:
        self._clock = clock
        self.topology = topology
        self.counters = counters
        self._engines = engines
        self._report_age_s = report_age_s
        self._caches = caches

    @property
    def now_s(self) -> float:
        """The time, seconds."""
        return self._clock._now

    def report(self, node: int) -> NodeReport:
        """The latest report of a node that has reached the router."""
        return read_report(self._engines[node], self._clock._now - self._report_age_s)

    def prefix_hit_tokens(self, request: RequestView, node: int) -> int:
        """Prompt tokens of a request that a node's prefix cache held at the time of its latest report; 0 without one.

        What the request would save there: prefill on a prefill node, transfer on a decode node, on which less and more
        may come to be cached until it gets to it.
        """
        if not self._caches:
            return 0
        cached = self._caches[node].reported_prefix_tokens(request.block_hashes, self._clock._now)
        return min(cached, request.prompt_tokens - 1)

    def shortest_prefill_queue(self) -> int:
        """The prefill node with the fewest prompt tokens dispatched and not yet computed; the first of equals."""
        return first_least(self.topology.prefill_nodes, self.counters.queued_prompt_tokens)

    def least_loaded_decode_node(self) -> int:
        """The decode node with the fewest unfinished requests; the first of equals."""
        return first_least(self.topology.decode_nodes, self.counters.decode_requests)
