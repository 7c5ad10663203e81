"""A router in front of live workers: a policy places each request, and the router sends it and relays its tokens.

A deflected request is sent to its node whole. Any other goes to its prefill node for one token, then its KV "moves" to
the decode node, and that node gets a prompt that is a prefix of one which all nodes computed at the start, as long as
the request's own prompt. So the decode node finds its KV in the prefix cache, apart from the last block, as it would
find KV that had been transferred. Mock engines have no transfer that a deflected prompt could share a node with.

The transfer takes the time that the cluster's links need, one after the other on each NIC.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from envs.cluster import ClusterConfig, Placement, Policy, RequestRecord, RequestView, RunResult
from envs.cluster.gaps import GapLog, segment
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.placement import checked_placement
from envs.cluster.request import Phase, Request
from envs.cluster.simulate import RunCounters
from envs.cluster.topology import Topology
from experiments.serving.live_view import LiveView
from experiments.serving.workers import BLOCK_TOKENS

_REFRESH_TOKENS = 100_000
"""Prompt tokens sent to a node after which its prefix of the hand-overs is used again, so that it is not evicted."""


class Worker(Protocol):
    """A client of one worker."""

    def generate(self, tokens: Sequence[int], max_tokens: int) -> AsyncIterator[int]:
        """Send a prompt; yields the number of new tokens whenever some arrive. Raises WorkerLostError."""


class WorkerLostError(Exception):
    """The worker of a node does not answer any more."""

    def __init__(self, node: int) -> None:
        super().__init__(f"the worker of node {node} is lost")
        self.node = node


@dataclass
class Clock:
    """Time in the units of the workload: `speedup` seconds in each real one."""

    speedup: float = 1.0
    _start: float = 0.0

    def start(self) -> None:
        """Set the time to 0."""
        self._start = perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return (perf_counter() - self._start) * self.speedup

    async def sleep_until(self, time_s: float) -> None:
        """Wait until a time."""
        await asyncio.sleep((time_s - self.now_s) / self.speedup)


class LiveRouter:
    """The router.

    Attributes:
        view: what policies see.
        records: of the requests that finished or were rejected.
        decision_s: real time of each decision, seconds.
        kv_bytes_moved: bytes of KV "moved" between nodes.

    Args:
        config: the cluster that the workers are.
        policy: places the requests.
        workers: clients, by node.
        clock: the time.
        shared: the prompt whose prefixes stand for KV that has been handed over, at least as long as any prompt.
    """

    def __init__(
        self,
        config: ClusterConfig,
        policy: Policy,
        workers: Sequence[Worker],
        clock: Clock,
        shared: Sequence[int],
    ) -> None:
        self.records: list[RequestRecord] = []
        self.decision_s: list[float] = []
        self.kv_bytes_moved = 0
        self._topology = Topology(config)
        self._lifecycle = Lifecycle(self._topology.nodes, self.records.append)
        self.view = LiveView(self._topology, self._lifecycle.counters)
        self._policy, self._workers, self._clock, self._shared = policy, workers, clock, shared
        self._gaps = GapLog()
        self._nic_free_s = dict.fromkeys(self._topology.nics, 0.0)
        self._held: list[deque[tuple[int, asyncio.Future[None]]]] = [deque() for _ in self._topology.hosts]
        self._uncomputed = [0] * self._topology.nodes
        self._sent_tokens = [0] * self._topology.nodes

    async def warm(self) -> None:
        """Let every node compute the shared prompt."""
        await asyncio.gather(*[self._refresh(node) for node in self._topology.live_nodes])
        for state in self.view.nodes:
            state.begun_tokens = 0

    def stepped(self, node: int, report: Any) -> None:
        """Take in a step report of a node; see `NodeState.stepped`."""
        self.view.nodes[node].stepped(report)
        self._release(node)

    async def serve(self, request: Request, tokens: Sequence[int], relay: Callable[[int], object]) -> bool:
        """Place a request, send it, and relay its tokens; whether it was accepted.

        Args:
            request: a new request; its times are set, and in the end it is recorded.
            tokens: its prompt.
            relay: called with the number of new tokens whenever some arrive.
        """
        placement = self._place(request)
        if placement is None:
            self._lifecycle.rejected(request)
            return False
        self._lifecycle.submitted(request, placement)
        while True:
            try:
                await self._run(request, tokens, relay)
                return True
            except WorkerLostError as lost:
                self._lose(lost.node)
                if not self._topology.live_nodes:
                    raise
                self._lifecycle.displace(request)
                self._lifecycle.placed(request, self._place(request) or self.view.default_placement())

    def result(self, end_s: float) -> RunResult:
        """What a simulation returns, of the requests so far; the run ended at `end_s`.

        Requests without a last token are records too. Fields of `RunCounters` that no router can see are 0.
        """
        unfinished = [request.record() for request in self._lifecycle.in_flight.values()]
        steps = [step_s for state in self.view.nodes for step_s in state.mixed_steps]
        counters = RunCounters(
            events=sum(state.steps for state in self.view.nodes),
            preemptions=0,
            displaced=self._lifecycle.displaced,
            kv_expired=0,
            chunk_steps=len(steps),
            chunk_steps_over_slo=0,
            over_slo_decode_alone=0,
            over_slo_minimum=0,
            kv_bytes_moved=self.kv_bytes_moved,
            busy_s=tuple(state.busy_s for state in self.view.nodes),
            misses=self._lifecycle.misses + len(unfinished),
        )
        return RunResult([*self.records, *unfinished], self._gaps, counters, np.array(self.decision_s), end_s)

    # ---- placing --------------------------------------------------------------------------------------------------

    def _place(self, request: Request) -> Placement | None:
        began = perf_counter()
        asked = RequestView(
            request.index, request.arrival_s, request.target_tokens, request.ttft_slo_s, request.tbt_slo_s
        )
        placement = self._policy.place(asked, self.view.at(self._clock.now_s))
        self.decision_s.append(perf_counter() - began)
        if placement is None:
            return None
        return checked_placement(placement, self._policy.name, request.index, self._topology.nodes)._replace(
            chunk_plan=(), split_tokens=0
        )

    def _lose(self, node: int) -> None:
        if not self._topology.is_lost(node):
            self._topology.lose(node)
            while self._held[node]:
                _, turn = self._held[node].popleft()
                if not turn.done():
                    turn.set_exception(WorkerLostError(node))

    # ---- a request --------------------------------------------------------------------------------------------------

    async def _run(self, request: Request, tokens: Sequence[int], relay: Callable[[int], object]) -> None:
        """Send a request that has been placed, from prefill to its last token."""
        source, target = request.prefill_node, request.decode_node
        await self._turn(request)
        sent_s = self._clock.now_s
        deflected = source == target
        answer = self._generate(source, tokens, request.output_tokens - request.generated_tokens if deflected else 1)
        async for new in answer:
            if request.phase is Phase.QUEUED:
                self._prefilled(request, sent_s, deflected)
            if deflected:
                self._decoded(request, new, relay)
        if not deflected:
            await self._transfer(request, source, target)
            self._lifecycle.arrived(request, self._clock.now_s)
            if self._sent_tokens[target] > _REFRESH_TOKENS:
                await self._refresh(target)
            prompt = self._shared[: len(tokens)]
            self.view.nodes[target].begun_tokens -= len(prompt) - (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            async for new in self._generate(target, prompt, request.output_tokens - request.generated_tokens):
                if request.phase is Phase.READY:
                    self._lifecycle.joined(request)
                self._decoded(request, new, relay)
        self._finished(request)

    def _prefilled(self, request: Request, sent_s: float, deflected: bool) -> None:
        """Note that a prompt is computed. Nobody reports when it began, but it was sent when its turn had come."""
        now_s = self._clock.now_s
        node = request.prefill_node
        self._lifecycle.began(request)
        if request.first_token_s != request.first_token_s:  # nan: not displaced later
            request.prefill_start_s = sent_s
        self.view.nodes[node].begun_tokens -= request.target_tokens
        self._uncomputed[node] -= request.target_tokens
        self._release(node)
        if deflected:
            self._lifecycle.computed_here(request, now_s)
            self._lifecycle.joined(request)
        else:
            self._lifecycle.computed(request, now_s)

    async def _transfer(self, request: Request, source: int, target: int) -> None:
        topology = self._topology
        tokens = request.target_tokens
        self._lifecycle.reserved(request, tokens + 1)
        nics = topology.nics[source], topology.nics[target]
        begin_s = max(self._clock.now_s, *[self._nic_free_s[nic] for nic in nics])
        end_s = begin_s + topology.transfer_s(source, target, tokens)
        for nic in nics:
            self._nic_free_s[nic] = end_s
        self.kv_bytes_moved += topology.kv_bytes(tokens)
        await self._clock.sleep_until(end_s)

    def _decoded(self, request: Request, new: int, relay: Callable[[int], object]) -> None:
        """Note new tokens of a request."""
        now_s = self._clock.now_s
        if request.first_token_s != request.first_token_s:
            request.first_token_s = now_s
        else:
            gap_s = now_s - request.last_token_s
            request.tbt_max_s = max(request.tbt_max_s, gap_s)
            self._gaps.append(segment(request.last_token_s, 1.0, gap_s, 0.0, 1.0))
        request.last_token_s = now_s
        decoding = self.view.nodes[request.decode_node].decoding
        decoding[request] = decoding.get(request, -1) + new
        request.generated_tokens += new
        relay(new)

    def _finished(self, request: Request) -> None:
        del self.view.nodes[request.decode_node].decoding[request]
        self._lifecycle.finished(request, request.last_token_s)

    # ---- the order of vLLM ----------------------------------------------------------------------------------------

    async def _turn(self, request: Request) -> None:
        """Hold a prompt back until its node has less to compute than fits into a step.

        In vLLM a request whose KV has arrived comes before prompts that have not begun; in an engine's queue, where it
        is the last to arrive, it would wait behind all of them.
        """
        node = request.prefill_node
        turn = asyncio.get_running_loop().create_future()
        self._held[node].append((request.target_tokens, turn))
        self._release(node)
        await turn

    def _release(self, node: int) -> None:
        """Let the prompts go whose turn has come."""
        held = self._held[node]
        while held and self._uncomputed[node] - self.view.nodes[node].begun_tokens < self._topology.token_budget:
            tokens, turn = held.popleft()
            if not turn.done():
                turn.set_result(None)
                self._uncomputed[node] += tokens
                self._sent_tokens[node] += tokens

    # ---- workers ----------------------------------------------------------------------------------------------------

    async def _generate(self, node: int, tokens: Sequence[int], max_tokens: int) -> AsyncIterator[int]:
        async for new in self._workers[node].generate(tokens, max_tokens):
            yield new

    async def _refresh(self, node: int) -> None:
        """Use the shared prompt on a node, so that it is in the node's prefix cache."""
        self._sent_tokens[node] = 0
        async for _ in self._generate(node, self._shared, 1):
            pass
