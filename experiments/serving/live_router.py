"""A router in front of live workers: a policy places each request, and the router sends it and relays its tokens.

A deflected request is sent to its node whole. Any other goes to its prefill node for one token. Then its KV "moves" to
the decode node, and that node gets a prompt that is a prefix of one which all nodes computed at the start, as long as
the request's own prompt. So the decode node finds its KV in the prefix cache, apart from the last block, as it would
find KV that had been transferred. Mock engines have no transfer that a deflected prompt could share a node with.

The transfer takes the time that the cluster's links need, one after the other on each NIC.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

from agents.placement_policy import LearnedPolicy
from envs.cluster import ClusterConfig, Placement, Policy, RequestRecord, RequestView
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.placement import checked_placement
from envs.cluster.request import Phase, Request
from envs.cluster.topology import Topology
from experiments.mock_stack.mock_timing import BLOCK_TOKENS
from experiments.mock_stack.worker import Tokens, Worker, WorkerLostError
from experiments.serving.live_clock import LiveClock
from experiments.serving.live_view import LiveView
from experiments.serving.prompt_turns import PromptTurns
from hardware_profiles import InputError

_REFRESH_TOKENS = 100_000
"""Prompt tokens sent to a node after which its prefix of the hand-overs is used again, so that it is not evicted."""


class Observer(Protocol):
    """Something that learns what a router does."""

    def decided(self, seconds: float) -> None:
        """A policy has decided; it took so many real seconds."""

    def gap(self, start_s: float, gap_s: float, /) -> None:
        """A gap between two tokens of a request has ended."""

    def moved(self, kv_bytes: int) -> None:
        """The KV of a request begins to move."""

    def recorded(self, record: RequestRecord) -> None:
        """A request has finished, or was rejected."""


def without_plan(placement: Placement) -> Placement:
    """A placement without chunk plan and split, which no mock engine has."""
    return placement._replace(chunk_plan=(), split_tokens=0)


class RejectedError(Exception):
    """A policy rejected a request."""


class LiveRouter:
    """The router.

    Attributes:
        view: what policies see.
        lifecycle: the requests in flight, and the counts of the router.

    Args:
        config: the cluster that the workers are.
        policy: places the requests.
        workers: clients, by node.
        clock: the time.
        shared: the prompt whose prefixes stand for KV that has been handed over; the longest prompt that is allowed.
        observer: learns of everything.
    """

    def __init__(
        self,
        config: ClusterConfig,
        policy: Policy,
        workers: Sequence[Worker],
        clock: LiveClock,
        shared: Tokens,
        observer: Observer,
    ) -> None:
        self._topology = topology = Topology(config)
        self.lifecycle = Lifecycle(topology.nodes, observer.recorded)
        self.view = LiveView(topology, self.lifecycle.counters)
        self._policy, self._workers, self._clock, self._shared = policy, workers, clock, shared
        self._observer = observer
        self._turns = [PromptTurns(state, topology.token_budget) for state in self.view.nodes]
        self._nic_free_s = dict.fromkeys(topology.nics, 0.0)
        self._since_refresh = [0] * topology.nodes

    async def warm(self) -> None:
        """Let every node compute the shared prompt."""
        await asyncio.gather(*[self._refresh(node) for node in self._topology.live_nodes])
        for state in self.view.nodes:
            state.begun_tokens = 0

    def stepped(self, node: int, report: Any) -> None:
        """Take in a step report of a node; see `NodeState.stepped`."""
        self.view.nodes[node].stepped(report)
        self._turns[node].release()

    async def serve(self, request: Request, tokens: Tokens, relay: Callable[[Tokens], object]) -> bool:
        """Place a request, send it, and relay its tokens; whether it was accepted.

        If a worker is lost, its requests are placed again, and keep the tokens that they have.

        Args:
            request: a new request; its times are set, and in the end it is recorded.
            tokens: its prompt.
            relay: called with new tokens whenever some arrive.

        Raises:
            InputError: the prompt is longer than `shared`.
            WorkerLostError: the last worker of a role is lost; policies cannot place without both roles.
        """
        self._check_roles()
        if len(tokens) > len(self._shared):
            raise InputError(f"a prompt of {len(tokens):,} tokens; at most {len(self._shared):,} are allowed")
        known = list(tokens)

        def relayed(new: Tokens) -> None:
            known.extend(new)
            relay(new)

        placement = self._place(request)
        if placement is None:
            self.lifecycle.rejected(request)
            return False
        self.lifecycle.submitted(request, placement)
        if isinstance(self._policy, LearnedPolicy):
            asyncio.get_running_loop().call_soon(self._policy.catch_up)
        try:
            while True:
                try:
                    await self._run(request, known, relayed)
                    return True
                except WorkerLostError as lost:
                    self._lose(lost.node)
                    self._check_roles()
                    self._forget(request)
                    self.lifecycle.displace(request)
                    self.lifecycle.placed(request, self._place(request) or self.view.default_placement())
        except BaseException:  # given up, or cancelled by the client
            self._forget(request)
            self.lifecycle.displace(request)
            self.lifecycle.first_token_wait.requests.pop(request, None)
            del self.lifecycle.in_flight[request.index]
            raise

    async def answer(self, request: Request, tokens: Tokens) -> AsyncIterator[Tokens]:
        """`serve` as a stream of new tokens; it ends with the request. Closing it gives the request up.

        Raises:
            RejectedError: the policy rejected the request.
        """
        queue: asyncio.Queue[Tokens | None] = asyncio.Queue()
        serving = asyncio.create_task(self.serve(request, tokens, queue.put_nowait))
        serving.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (new := await queue.get()) is not None:
                yield new
            if not serving.result():
                raise RejectedError(f"{self._policy.name} rejected the request")
        finally:
            serving.cancel()

    # ---- placing ----------------------------------------------------------------------------------------------------

    def _place(self, request: Request) -> Placement | None:
        began = perf_counter()
        asked = RequestView(
            request.index, request.arrival_s, request.target_tokens, request.ttft_slo_s, request.tbt_slo_s
        )
        placement = self._policy.place(asked, self.view.at(self._clock.now_s))
        self._observer.decided(perf_counter() - began)
        if placement is None:
            return None
        placement = checked_placement(placement, self._policy.name, request.index, self._topology.nodes)
        return without_plan(placement)

    def _lose(self, node: int) -> None:
        if not self._topology.is_lost(node):
            self._topology.lose(node)
            self._turns[node].stop(WorkerLostError(node))

    def _check_roles(self) -> None:
        topology = self._topology
        if not (topology.prefill_nodes and topology.decode_nodes):
            raise WorkerLostError(max(topology.lost))

    def _forget(self, request: Request) -> None:
        """Stop counting a request as decoding."""
        self.view.nodes[request.decode_node].decoding.pop(request, None)

    # ---- a request --------------------------------------------------------------------------------------------------

    async def _run(self, request: Request, tokens: Tokens, relay: Callable[[Tokens], object]) -> None:
        """Send a request that has been placed, from prefill to its last token."""
        deflected = request.prefill_node == request.decode_node
        left = request.output_tokens - request.generated_tokens
        async for new in self._prefill(request, tokens, left if deflected else 1):
            if deflected:
                self._decoded(request, new, relay)
        if not deflected:
            await self._transfer(request)
            async for new in self._hand_over(request, left):
                self._decoded(request, new, relay)
        self._forget(request)
        request.output_tokens = request.generated_tokens
        self.lifecycle.finished(request, request.last_token_s)

    async def _prefill(self, request: Request, tokens: Tokens, max_tokens: int) -> AsyncIterator[Tokens]:
        """Have a prompt computed on its prefill node.

        Nobody reports when a prompt begins, but it is sent when its turn has come.
        """
        node = request.prefill_node
        turns = self._turns[node]
        await turns.wait(len(tokens))
        sent_s = self._clock.now_s
        self._since_refresh[node] += len(tokens)
        length, computed = len(tokens), False
        try:
            async for new in self._workers[node].generate(tokens, max_tokens):
                if not computed:
                    computed = True
                    turns.computed(length)
                    self._prefilled(request, sent_s)
                yield new
        finally:
            if not computed:
                turns.computed(length)

    def _prefilled(self, request: Request, sent_s: float) -> None:
        now_s = self._clock.now_s
        self.lifecycle.began(request)
        if request.prefill_end_s != request.prefill_end_s:  # nan: its first prefill
            request.prefill_start_s = sent_s
        if request.prefill_node == request.decode_node:
            self.lifecycle.computed_here(request, now_s)
            self.lifecycle.joined(request)
        else:
            self.lifecycle.computed(request, now_s)

    async def _transfer(self, request: Request) -> None:
        topology = self._topology
        source, target, tokens = request.prefill_node, request.decode_node, request.target_tokens
        self.lifecycle.reserved(request, tokens + 1)
        nics = topology.nics[source], topology.nics[target]
        begin_s = max(self._clock.now_s, *[self._nic_free_s[nic] for nic in nics])
        end_s = begin_s + topology.transfer_s(source, target, tokens)
        for nic in nics:
            self._nic_free_s[nic] = end_s
        self._observer.moved(topology.kv_bytes(tokens))
        await self._clock.sleep_until(end_s)
        self.lifecycle.arrived(request, self._clock.now_s)

    async def _hand_over(self, request: Request, max_tokens: int) -> AsyncIterator[Tokens]:
        """Let the decode node generate from KV that has "arrived"."""
        node, length = request.decode_node, request.target_tokens
        if self._since_refresh[node] > _REFRESH_TOKENS:
            await self._refresh(node)
        # The engine computes the last block, which no router counts as prompt tokens.
        self.view.nodes[node].begun_tokens -= length - (length - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        async for new in self._workers[node].generate(self._shared[:length], max_tokens):
            if request.phase is Phase.READY:
                self.lifecycle.joined(request)
            yield new

    def _decoded(self, request: Request, new: Tokens, relay: Callable[[Tokens], object]) -> None:
        """Note new tokens of a request."""
        now_s = self._clock.now_s
        if request.first_token_s != request.first_token_s:
            self.lifecycle.first_token_wait.end(request, now_s)
        else:
            gap_s = now_s - request.last_token_s
            request.tbt_max_s = max(request.tbt_max_s, gap_s)
            self._observer.gap(request.last_token_s, gap_s)
        request.last_token_s = now_s
        decoding = self.view.nodes[request.decode_node].decoding
        decoding[request] = decoding.get(request, -1) + len(new)
        request.generated_tokens += len(new)
        relay(new)

    async def _refresh(self, node: int) -> None:
        """Use the shared prompt on a node, so that it is in the node's prefix cache."""
        self._since_refresh[node] = 0
        async for _ in self._workers[node].generate(self._shared, 1):
            pass
