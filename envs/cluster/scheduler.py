"""The contents of an engine's next step: who decodes, who is prefilled and by how much, who may come in.

The order is that of vLLM's V1 scheduler (`Scheduler.schedule` in vllm/v1/core/sched/scheduler.py): running requests
first, a partly prefilled prompt among them, then waiting requests, first come first served, from what is left of the
step's token budget; none of them in a step that had to preempt. A request whose KV has arrived is a waiting request.

Under `step_budget="slo"` the scheduler also bounds a step's prompt tokens, so that the step lasts no longer than a
share of the strictest TBT SLO among its decodes. Then requests whose KV has arrived join ahead of all prompts, and KV
may be sent for although a step is full of prompt tokens. docs/engine.md describes both in full.
"""

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Protocol

from envs.cluster.config import ClusterConfig
from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.kv_pool import KvPool
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.request import Phase, Request
from envs.cluster.span import Span, steps_up_to
from hardware_profiles import StepLaw

PREEMPTED = Phase.PREEMPTED  # a module's global is found faster than an enum's member


class KvSource(Protocol):
    """Where KV comes from that a node need not compute: other nodes, and its prefix cache."""

    def send(self, request: Request) -> None:
        """The KV of a request may be sent now: its decode node has made room."""

    def wait(self, node: int) -> None:
        """Requests wait for room on a node; called whenever its scheduler has left some waiting."""

    def cached_tokens(self, request: Request, node: int) -> int:
        """Tokens that the node's prefix cache spares a prompt with block hashes."""


class Scheduler:
    """The queues of one engine, and the plan of its next steps.

    Attributes:
        batch: the requests that decode.
        kv: the node's KV memory.
        prefilling: begun prompts; each holds KV for its whole target.
        ready: requests whose KV has arrived, in order of arrival.
        prompts: prompts that have not begun, preempted ones first.
        awaiting: requests computed elsewhere that ask for KV here, in order.
        inbound: requests whose KV is reserved here and has not all arrived.
        chunks: the prompt chunks of the planned step, each a prompt and its tokens.
        chunk_tokens: their sum.
        enqueued_tokens: prompt tokens that routers ever sent here.
        computed_tokens: of them, those computed; what must be computed again does not count.
        prefix_hit_tokens: prompt tokens that came out of the node's prefix cache.
        preemptions: requests thrown out of the batch so far.

    Args:
        node: index of the engine's node.
        config: limits and step budget.
        kv: the node's KV memory.
        batch: the node's decode batch.
        lifecycle: told of phases.
        source: asked for KV.
    """

    __slots__ = (
        "_bounded",
        "_budget",
        "_grain_tokens",
        "_lifecycle",
        "_limit_s",
        "_max_prompts",
        "_max_seqs",
        "_next_turn",
        "_node",
        "_open",
        "_preempted_s",
        "_slo_share",
        "_slots",
        "_source",
        "_step_tokens",
        "_streams",
        "_token_budget",
        "awaiting",
        "batch",
        "chunk_tokens",
        "chunks",
        "computed_tokens",
        "enqueued_tokens",
        "inbound",
        "kv",
        "preemptions",
        "prefilling",
        "prefix_hit_tokens",
        "prompts",
        "ready",
    )

    def __init__(
        self,
        node: int,
        config: ClusterConfig,
        kv: KvPool,
        batch: DecodeBatch,
        lifecycle: Lifecycle,
        source: KvSource,
    ) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._source = source
        self._bounded = config.step_budget == "slo"
        self._slo_share = config.slo_share
        self._grain_tokens = config.chunk_grain_tokens
        self._token_budget = config.token_budget
        self._max_seqs = config.max_seqs
        self._max_prompts = config.max_prompts
        self._streams = config.kv_streaming
        self.kv = kv
        self.batch = batch
        self.prefilling: list[Request] = []
        self.ready: deque[Request] = deque()
        self.prompts: deque[Request] = deque()
        self.awaiting: deque[Request] = deque()
        self.inbound = 0
        self.enqueued_tokens = 0
        self.computed_tokens = 0
        self.prefix_hit_tokens = 0
        self.preemptions = 0
        self._next_turn = 0
        self._preempted_s = -1.0  # when the scheduler last preempted
        self.chunks: list[tuple[Request, int]] = []
        self.chunk_tokens = 0
        # Of the step being planned: tokens and time left, tokens taken, chunks at most, and whether prompts may come.
        self._budget = 0
        self._limit_s = inf
        self._step_tokens = 0
        self._slots = 0
        self._open = True

    def copy_state(self, other: "Scheduler", twins: Mapping[Request, Request]) -> None:
        """Take over another scheduler's queues and plan, with the requests that `twins` gives for its own."""
        self.kv.used_tokens = other.kv.used_tokens
        self.batch.copy_state(other.batch, twins)
        self.prefilling = [twins[request] for request in other.prefilling]
        self.ready = deque([twins[request] for request in other.ready])
        self.prompts = deque([twins[request] for request in other.prompts])
        self.awaiting = deque([twins[request] for request in other.awaiting])
        self.inbound = other.inbound
        self.enqueued_tokens = other.enqueued_tokens
        self.computed_tokens = other.computed_tokens
        self.prefix_hit_tokens = other.prefix_hit_tokens
        self.preemptions = other.preemptions
        self._next_turn = other._next_turn
        self._preempted_s = other._preempted_s
        self.chunks = [(twins[request], n) for request, n in other.chunks]
        self.chunk_tokens = other.chunk_tokens

    # ---- queues -----------------------------------------------------------------------------------------------------

    def add_prompt(self, request: Request) -> None:
        """A prompt reaches the node, sent by a router."""
        self.enqueued_tokens += request.target_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_expired(self, request: Request) -> None:
        """A prompt whose KV was dropped elsewhere is to be computed here; no router sent it."""
        self.computed_tokens -= request.target_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_awaiting(self, request: Request) -> None:
        """A request computed elsewhere asks for KV."""
        self._next_turn = request.turn = self._next_turn + 1
        self.awaiting.append(request)

    def add_arrived(self, request: Request) -> None:
        """The KV of a request has arrived: it decodes next, or the rest of its prompt is prefilled."""
        self.inbound -= 1
        (self.prefilling if request.rest_tokens else self.ready).append(request)

    def forget(self, request: Request) -> None:
        """A request does not come here after all: it asks for KV no more, and what is reserved for it is free."""
        if request.reserved_tokens:
            self.kv.release(request.reserved_tokens)
            self.inbound -= 1
        elif request in self.awaiting:
            self.awaiting.remove(request)

    def clear(self, now_s: float) -> None:
        """Give up every request; those that decode keep the tokens they have given, the last of them at `now_s`."""
        self.batch.take_all(now_s)
        self.computed_tokens = self.enqueued_tokens
        self.prefilling = []
        self.prompts.clear()
        self.ready.clear()
        self.awaiting.clear()
        self.inbound = 0
        self.chunks = []
        self.chunk_tokens = 0
        self.kv.used_tokens = 0

    # ---- the plan ---------------------------------------------------------------------------------------------------

    def plan(self, law: StepLaw, span: Span, now_s: float) -> None:
        """Choose the contents of the steps from `now_s` on and make `span` that run; 0 steps: nothing to do."""
        batch = self.batch
        members = batch.members
        decoding = len(members)
        kv = self.kv
        room = kv.capacity_tokens - kv.used_tokens
        while room < decoding:
            self._preempt(now_s)
            decoding = len(members)
            room = kv.capacity_tokens - kv.used_tokens
        preempted = self._preempted_s == now_s
        ready = self.ready
        if self.prefilling or self.prompts or self.awaiting:
            if ready and self._bounded and not preempted:
                self._join_ready(self._token_budget - decoding)
            chunk_steps = self._begin_only_prompt(preempted) or self._choose_chunks(law, preempted)
            decoding = len(members)
            tokens = decoding + self.chunk_tokens
        else:
            chunk_steps = 0
            if ready and not preempted:
                self._join_ready(self._token_budget - decoding)
                decoding = len(members)
            tokens = decoding
        if not tokens:
            if preempted:  # nothing runs: the preempted requests may begin again
                self._preempted_s = -1.0
                self.plan(law, span, now_s)
            else:
                span.idle(now_s)
            return
        first_s = law.token_time_s[tokens]
        if decoding:
            steps = members[0][0] - batch.step
            if chunk_steps and chunk_steps < steps:
                steps = chunk_steps
            kv_tokens = batch.kv_tokens
            base_s, kv_s, line_end = law.decode_line(decoding, kv_tokens)
            first_s += base_s + kv_s * kv_tokens
            growth_s = kv_s * decoding
            if kv_tokens + steps * decoding > line_end:
                steps = int((line_end - kv_tokens) // decoding) + 1  # from there on the law has another slope
            room = kv.capacity_tokens - kv.used_tokens
            if steps * decoding > room:
                steps = room // decoding
        else:
            steps = chunk_steps
            growth_s = 0.0
        if chunk_steps:
            first_s += law.chunk_const_s
            for request, n in self.chunks:
                first_s += law.attention_s(n, request.computed_tokens)
            if steps > 1:
                n = self.chunk_tokens
                growth_s += law.attention_growth_s(n)
                if decoding and self._bounded and n > self._grain_tokens:
                    steps = steps_up_to(self._slo_share * batch.tbt_slo_s, steps, first_s, growth_s) or 1
        if preempted and (ready or self.prompts or self.awaiting):
            steps = 1  # they may come in after this step
        span.begin(now_s, steps, first_s, growth_s)

    def _preempt(self, now_s: float) -> None:
        """Take the request that joined the batch last out of it, free its KV and queue it ahead of all that wait."""
        request, kv_tokens = self.batch.take_youngest(now_s)
        self.kv.release(kv_tokens)
        self._lifecycle.preempted(request)
        self.computed_tokens -= request.target_tokens  # to be done again; no router has sent it, so it is not enqueued
        request.turn = 0
        self.prompts.appendleft(request)
        self.preemptions += 1
        self._preempted_s = now_s

    def _join_ready(self, budget: int) -> int:
        """Let requests whose KV has arrived into the batch, within a token budget; returns how many."""
        batch = self.batch
        free = self._max_seqs - len(batch.members) - len(self.prefilling)
        if free > budget:
            free = budget
        joined = 0
        ready = self.ready
        while ready and joined < free:
            batch.join(ready.popleft(), fresh=True)
            joined += 1
        self.kv.release(joined)  # the token that was reserved for each is the step's to take
        return joined

    def _begin_only_prompt(self, preempted: bool) -> bool:
        """Begin a prompt that is all there is to choose from and fits into the step; False: the choice is not as plain.

        The general choice gives the same and costs twice as much (-2 % of the bytecodes of a run under `static`).
        """
        prompts = self.prompts
        if len(prompts) != 1 or self.prefilling or self.awaiting or self.ready or preempted:
            return False
        request = prompts[0]
        tokens = request.target_tokens
        decoding = len(self.batch.members)
        if decoding and (self._bounded or decoding >= self._max_seqs):
            return False
        if decoding + tokens > self._token_budget or request.block_hashes:
            return False
        if request.chunk_plan and request.chunk_plan[0] < tokens:
            return False
        if not self.kv.take(tokens, decoding):
            return False
        prompts.popleft()
        request.kv_tokens = tokens
        self.prefilling.append(request)
        self._lifecycle.began(request)
        self.chunks = [(request, tokens)]
        self.chunk_tokens = tokens
        return True

    def _choose_chunks(self, law: StepLaw, preempted: bool) -> int:
        """Choose the chunks of the next step and make room for newcomers; returns for how many steps the choice holds.

        0: no chunk.
        """
        batch = self.batch
        decoding = len(batch.members)
        self.chunks = []
        self.chunk_tokens = 0
        self._budget = self._token_budget - decoding
        self._slots = min(self._max_seqs - decoding, self._max_prompts)
        self._open = self._slots > 0
        self._limit_s = inf
        bounded = self._bounded
        if bounded and decoding:
            self._step_tokens = decoding
            decode_s = law.decode_s(decoding, batch.kv_tokens)
            self._limit_s = self._slo_share * batch.tbt_slo_s - law.chunk_const_s - decode_s
        for request in self.prefilling:
            if request.chunk_plan and self.chunks:
                self._open = False
            if not self._open:
                break
            self._give_chunk(law, request, request.computed_tokens)
        if not preempted:
            if self.ready and not bounded and self._budget > 0:
                self._budget -= self._join_ready(self._budget)
            if (self.prompts or self.awaiting) and (bounded or self._budget > 0):
                self._let_in(law)
        if self.awaiting:
            self._source.wait(self._node)
        chunks = self.chunks
        if len(chunks) != 1:
            return 1 if chunks else 0
        request, n = chunks[0]
        remaining = request.target_tokens - request.computed_tokens
        return 1 if n == remaining else self._steps_held(request, n, remaining)

    def _let_in(self, law: StepLaw) -> None:
        """Admit waiting requests in order: prompts begin and get a chunk, and KV is sent for."""
        prompts = self.prompts
        awaiting = self.awaiting
        decoding = len(self.batch.members)
        free = self._max_seqs - decoding - len(self.prefilling)
        while free > 0 and (self._bounded or self._budget > 0):
            if prompts and (not awaiting or prompts[0].turn < awaiting[0].turn):
                request = prompts[0]
                if self._open and not (request.chunk_plan and self.chunks):
                    if not self.kv.take(request.target_tokens, decoding):
                        return
                    if self._begin(law, request):
                        prompts.popleft()
                        free -= 1
                        continue
                if not awaiting or request.phase == PREEMPTED:
                    return
            elif not awaiting:
                return
            request = awaiting[0]
            tokens = request.target_tokens + (request.rest_tokens or 1)  # all of it, or room for the next token
            if not self.kv.take(tokens, decoding):
                return
            awaiting.popleft()
            self.inbound += 1
            self._lifecycle.reserved(request, tokens)
            self._source.send(request)

    def _begin(self, law: StepLaw, request: Request) -> bool:
        """Begin a prompt, for which there is KV, if the step has a chunk for it; else give the KV back."""
        cached = self._source.cached_tokens(request, self._node) if request.block_hashes else 0
        plan = request.chunk_plan
        if cached and plan:  # the chunks that the cache covers are dropped: the rest were planned for their context
            planned = 0
            while planned < cached and len(plan) > 1:
                planned += plan[0]
                plan = plan[1:]
            request.chunk_plan = plan
        if not self._give_chunk(law, request, cached):
            self.kv.release(request.target_tokens)
            return False
        if cached:
            request.computed_tokens = cached
            self.computed_tokens += cached
            self.prefix_hit_tokens += cached
        request.kv_tokens = request.target_tokens
        self.prefilling.append(request)
        self._lifecycle.began(request)
        return True

    def _give_chunk(self, law: StepLaw, request: Request, computed_tokens: int) -> bool:
        """Give a prompt its chunk of the step, if the step still has one; no prompt follows one that is cut short."""
        remaining = request.target_tokens - computed_tokens
        n = remaining if remaining < self._budget else self._budget
        plan = request.chunk_plan
        if plan:
            if plan[0] < n:
                n = plan[0]
            self._open = False  # a plan shares its steps with decodes only: it keeps their TBT safe
        elif self._limit_s < inf:
            grain = self._grain_tokens
            most = n
            n = law.largest_chunk(self._limit_s, self._step_tokens, computed_tokens, most, grain)
            if not n:
                if self.chunks:
                    self._open = False
                    return False
                n = grain if grain < most else most  # a prompt always progresses
            self._step_tokens += n
            self._limit_s -= law.attention_s(n, computed_tokens)
        self._budget -= n
        self.chunk_tokens += n
        self.chunks.append((request, n))
        if n < remaining or self._budget == 0 or len(self.chunks) == self._slots:
            self._open = False
        return True

    def _steps_held(self, request: Request, n: int, remaining: int) -> int:
        """For how many steps a step's only prompt gets chunks of `n` tokens, as far as the prompt tells."""
        if self._streams and request.decode_node != self._node:
            return 1  # when KV is streamed, each step's end has some to send
        plan = request.chunk_plan
        steps = remaining // n
        if len(plan) > 1:
            if n < plan[0]:
                return 1
            same = 1
            while same < steps and same < len(plan) and plan[same] == n:
                same += 1
            return same
        if self._limit_s < inf and self._budget > 0:
            # Cut by the bound: what is left at the end may fit whole although a grain more would not.
            steps = max(1, (remaining - self._grain_tokens) // n)
        return steps
