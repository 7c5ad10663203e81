"""The cluster: engines, links, clock and router."""

from collections.abc import Callable

from envs.cluster.clock import Clock
from envs.cluster.config import ClusterConfig
from envs.cluster.engine import Engine
from envs.cluster.failures import Failures
from envs.cluster.gaps import GapLog
from envs.cluster.in_progress import settle, tbt_excess, unstamped_misses
from envs.cluster.kv_transfer import KvTransfers
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.placement import Placement
from envs.cluster.request import Request, RequestRecord
from envs.cluster.router_view import RouterView
from envs.cluster.topology import Topology
from hardware_profiles import InputError


class Cluster:
    """Engines, links and clock of a disaggregated serving cluster.

    `submit` queues a request's prompt on its prefill node. When the prompt is computed, the decode node's scheduler
    reserves room for its KV, the KV is sent, and the request joins the decode batch. A deflected prompt (decode node =
    prefill node) is computed in steps shared with the decodes of its node; its first token comes out of its last
    chunk's step. A split prompt's first part is computed and sent like any prompt, and the decode node computes the
    rest. docs/engine.md describes the rules.

    Attributes:
        clock: simulated time.
        topology: nodes, links and limits; only the loss of a node changes it.
        gaps: the gaps between tokens.
        lifecycle: the requests in flight, and counts of requests.
        engines: one engine per node.
        transfers: the transfers of KV.

    Args:
        config: the cluster.
        on_record: called with the record of each request that finishes or is rejected, in order of these events.
        on_displaced: places a request whose node was lost; None: shortest prefill queue, fewest decode requests.
        topology: the topology of `config`, if it exists already.
    """

    __slots__ = (
        "_failures",
        "_least_capacity_tokens",
        "_nodes",
        "_on_displaced",
        "_plans_refused",
        "_timeline",
        "_view",
        "clock",
        "config",
        "engines",
        "gaps",
        "lifecycle",
        "topology",
        "transfers",
    )

    def __init__(
        self,
        config: ClusterConfig,
        on_record: Callable[[RequestRecord], object],
        on_displaced: Callable[[Request], Placement] | None = None,
        topology: Topology | None = None,
    ) -> None:
        self.config = config
        self.topology = topology = topology if topology is not None else Topology(config)
        self._nodes = topology.nodes
        self._plans_refused = topology.step_budget != "fixed"
        self._least_capacity_tokens = min(topology.kv_capacity_tokens)
        self.clock = clock = Clock()
        self._timeline = timeline = clock.timeline
        self.gaps = GapLog()
        self.lifecycle = Lifecycle(topology.nodes, on_record)
        self.transfers = KvTransfers(timeline, config, topology, self.lifecycle)
        self.engines = [
            Engine(
                node,
                timeline,
                topology.laws[node],
                topology.kv_capacity_tokens[node],
                config,
                self.gaps,
                self.lifecycle,
                self.transfers,
            )
            for node in range(topology.nodes)
        ]
        self.transfers.engines = self.engines
        self._view = RouterView(
            timeline, topology, self.lifecycle.counters, self.engines, config.report_age_s, self.transfers.caches
        )
        self._on_displaced = on_displaced if on_displaced is not None else self._default_placement
        self._failures = Failures(clock, topology, self.engines, self.transfers, self.lifecycle, self._place_again)
        for disturbance in config.disturbances:
            clock.call_first_at(disturbance.at_s, self._failures.disturb, disturbance)

    def copy(self, on_record: Callable[[RequestRecord], object]) -> "Cluster":
        """An independent copy in the same state; its log of gaps starts empty.

        The cost depends only on the number of requests in flight.

        Args:
            on_record: called with the records of the requests that finish in the copy.
        """
        twin = Cluster(self.config, on_record, topology=self.topology.copy())
        twins = {request: request.copy() for request in self.lifecycle.in_flight.values()}
        twin.lifecycle.copy_state(self.lifecycle, twins)
        twin.transfers.copy_state(self.transfers, twins)
        owners: dict[object, object] = {
            self.transfers: twin.transfers,
            self.transfers.network: twin.transfers.network,
            self._failures: twin._failures,
        }
        for engine, engine_twin in zip(self.engines, twin.engines, strict=True):
            engine_twin.copy_work(engine, twins)
            owners[engine] = engine_twin
        twin.clock.copy_calls(self.clock, owners)
        return twin

    # ---- the router's side ------------------------------------------------------------------------------------------

    def view(self) -> RouterView:
        """The cluster as its router sees it; the same object every time."""
        return self._view

    def submit(self, request: Request, placement: Placement) -> None:
        """Place a request that has arrived now.

        A request whose prompt and output exceed the KV capacity of the smallest node is rejected instead: a deployment
        has one limit on the length of requests (vLLM's max_model_len), which every node can hold.

        Raises:
            InputError: a node does not exist or is lost, the step budget does not allow a chunk plan, a chunk is empty,
                or a split leaves one node without tokens.
        """
        prefill_node, decode_node, chunk_plan, split_tokens = placement
        nodes = self._nodes
        if (  # skips _check for simple placements, which saves 1 % of a run's bytecodes
            not (0 <= prefill_node < nodes and 0 <= decode_node < nodes)
            or (chunk_plan and (self._plans_refused or min(chunk_plan) < 1))
            or split_tokens
            or request.prompt_tokens + request.output_tokens >= self._least_capacity_tokens
            or self.topology.lost
        ):
            self._check(request, placement)
            # One token of slack, because a decode step needs room for its token.
            if request.prompt_tokens + request.output_tokens >= self._least_capacity_tokens:
                self.reject(request)
                return
        if self.transfers.caches:
            self._note_hit(request, placement)
        self.lifecycle.submitted(request, placement)
        if split_tokens:
            self._count_rest(request)
        self.engines[prefill_node].add_prompt(request)

    def reject(self, request: Request) -> None:
        """Reject a request that has arrived now; its record is the only trace."""
        self.lifecycle.rejected(request)

    def _place_again(self, request: Request) -> None:
        placement = self._on_displaced(request)
        self._check(request, placement)
        if self.transfers.caches:
            self._note_hit(request, placement)
        self.lifecycle.placed(request, placement)
        if request.rest_tokens:
            self._count_rest(request)
        self.engines[request.prefill_node].add_prompt(request)

    def _note_hit(self, request: Request, placement: Placement) -> None:
        """Record the tokens of a request that the router knows to be cached on its prefill node."""
        cached = self._view.prefix_hit_tokens(request, placement.prefill_node)
        tokens = placement.split_tokens or request.target_tokens
        request.known_hit_tokens = min(cached, tokens - 1)

    def _count_rest(self, request: Request) -> None:
        """Count the rest of a split prompt on its decode node."""
        self.engines[request.decode_node].scheduler.enqueued_tokens += request.rest_tokens

    def _check(self, request: Request, placement: Placement) -> None:
        prefill_node, decode_node, chunk_plan, split_tokens = placement
        topology = self.topology
        nodes = self._nodes
        if not 0 <= prefill_node < nodes > decode_node >= 0:
            raise InputError(
                f"{Placement(prefill_node, decode_node)} of request {request.index} names a node"
                f" outside 0 to {nodes - 1}"
            )
        if topology.lost and (prefill_node in topology.lost or decode_node in topology.lost):
            lost = prefill_node if prefill_node in topology.lost else decode_node
            raise InputError(
                f"{Placement(prefill_node, decode_node)} of request {request.index}: node {lost} is lost;"
                f" the nodes left are {', '.join(map(str, topology.prefill_nodes + topology.decode_nodes))}"
            )
        if chunk_plan:
            if topology.step_budget != "fixed":
                raise InputError(
                    f"{placement} of request {request.index} has a chunk plan, which needs step_budget='fixed':"
                    f" under '{topology.step_budget}' engines choose the chunks"
                )
            if min(chunk_plan) < 1:
                raise InputError(f"{placement} of request {request.index} has a chunk of less than one token")
        if split_tokens and not (prefill_node != decode_node and 0 < split_tokens < request.target_tokens):
            raise InputError(
                f"{placement} of request {request.index} splits a prompt of {request.target_tokens} tokens: a split"
                " needs two nodes, and a token for each"
            )

    def _default_placement(self, _: Request) -> Placement:
        return self._view.default_placement()

    # ---- costs ------------------------------------------------------------------------------------------------------

    def waiting_cost(self) -> float:
        """Time waited for first tokens so far, in units of each request's TTFT SLO, summed over requests.

        Each request adds (now - arrival) / SLO until its first token is out, and TTFT / SLO afterwards.
        """
        self.settle()
        return self.lifecycle.first_token_wait.linear(self._timeline.now_s)

    def tail_cost(self) -> float:
        """The same with squared waits: (now - arrival)^2 / SLO^2, and finally (TTFT / SLO)^2."""
        self.settle()
        return self.lifecycle.first_token_wait.squared(self._timeline.now_s)

    def tbt_cost(self) -> float:
        """Time by which gaps between tokens have exceeded their TBT SLO so far, in units of the SLO, summed."""
        now_s = self._timeline.now_s
        excess = 0.0
        for engine in self.engines:
            excess += tbt_excess(engine, now_s)
        return excess

    def misses(self) -> int:
        """Number of requests that have missed an SLO so far, including rejected ones; it never decreases.

        A request misses when its TTFT SLO has passed without a first token, or when a gap between two of its tokens
        ends that was longer than its TBT SLO. The cost of this method is linear in the number of requests in flight.
        """
        self.settle()
        now_s = self._timeline.now_s
        return self.lifecycle.misses_by(now_s) + sum([unstamped_misses(engine, now_s) for engine in self.engines])

    def settle(self) -> None:
        """Stamp the first tokens that are out by now, although their spans are still in progress."""
        now_s = self._timeline.now_s
        for engine in self.engines:
            settle(engine, now_s)
