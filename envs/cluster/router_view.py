"""A router's view of the cluster when it must place a request."""

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from envs.cluster.engine import Engine
from envs.cluster.placement import Placement
from envs.cluster.prefix_cache import PrefixCache
from envs.cluster.request import Request, RequestView
from envs.cluster.router_counters import RouterCounters
from envs.cluster.telemetry import NodeReport
from envs.cluster.timeline import Timeline
from envs.cluster.topology import Topology


def first_least(nodes: Sequence[int], values: Sequence[float]) -> int:
    """The node with the least value, the first of equals; three times as fast as `min` with a key on two nodes."""
    best = nodes[0]
    least = values[best]
    for node in nodes:
        if values[node] < least:
            best = node
            least = values[node]
    return best


@mypyc_attr(allow_interpreted_subclasses=True)
class RouterView:
    """The cluster as its router sees it now; what it shows moves on with the cluster.

    Attributes:
        topology: nodes, links and limits; only the loss of a node changes it.
        counters: the router's own counts, fresh.
        has_prefix_caches: whether nodes have prefix caches; if not, `prefix_hit_tokens` is 0 for all requests.
    """

    __slots__ = ("_caches", "_engines", "_report_age_s", "_timeline", "counters", "has_prefix_caches", "topology")

    def __init__(
        self,
        timeline: Timeline,
        topology: Topology,
        counters: RouterCounters,
        engines: list[Engine],
        report_age_s: float,
        caches: Sequence[PrefixCache] = (),
    ) -> None:
        self._timeline = timeline
        self.topology = topology
        self.counters = counters
        self._engines = engines
        self._report_age_s = report_age_s
        self._caches = caches
        self.has_prefix_caches = bool(caches)

    @property
    def now_s(self) -> float:
        """The time, seconds."""
        return self._timeline.now_s

    def report(self, node: int) -> NodeReport:
        """The latest report of a node that has reached the router."""
        return self._engines[node].report(self._timeline.now_s - self._report_age_s)

    def prefix_hit_tokens(self, request: RequestView | Request, node: int) -> int:
        """Prompt tokens of a request that a node's prefix cache held at the time of its latest report; 0 without one.

        What the request would save there: prefill on a prefill node, transfer on a decode node, on which less and more
        may come to be cached until it gets to it.
        """
        if not self._caches:
            return 0
        cached = self._caches[node].reported_prefix_tokens(request.block_hashes, self._timeline.now_s)
        return min(cached, request.prompt_tokens - 1)

    def mean_generated_tokens(self, node: int) -> float:
        """Tokens that the decode steps of a node have given its requests so far, per request that decodes there.

        Fresh, as the router relays tokens. The first token of a prompt that was prefilled there came out of its prefill
        and is not counted.
        """
        return self._engines[node].mean_generated_tokens()

    def uncached_tokens(self, request: RequestView, node: int) -> int:
        """Prompt tokens of a request that a node would have to compute: those that are no prefix hit there."""
        return request.prompt_tokens - self.prefix_hit_tokens(request, node)

    def shortest_prefill_queue(self) -> int:
        """The prefill node with the fewest prompt tokens dispatched and not yet computed; the first of equals."""
        return first_least(self.topology.prefill_nodes, self.counters.queued_prompt_tokens)

    def least_loaded_decode_node(self) -> int:
        """The decode node with the fewest unfinished requests; the first of equals."""
        return first_least(self.topology.decode_nodes, self.counters.decode_requests)

    def default_placement(self) -> Placement:
        """Where a request goes that nobody else places: shortest prefill queue, least loaded decode node."""
        return Placement(self.shortest_prefill_queue(), self.least_loaded_decode_node())
