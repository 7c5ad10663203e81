"""The scheduler of an engine: it chooses the decodes, prompt chunks and newly admitted requests of the next step.

The order is that of vLLM's V1 scheduler (`Scheduler.schedule` in vllm/v1/core/sched/scheduler.py): first running
requests, including partly prefilled prompts; then waiting requests, first come first served, within the rest of the
step's token budget. A step with a preemption admits no waiting request. A request whose KV has arrived counts as
waiting.

Under `step_budget="slo"` the scheduler also limits a step's prompt tokens, so that the step lasts at most a share of
the strictest TBT SLO among its decodes. In that case requests whose KV has arrived join before all prompts, and KV may
be requested even if a step is full of prompt tokens. docs/engine.md describes both modes in full.
"""

from collections.abc import Mapping

from mypy_extensions import mypyc_attr

from envs.cluster.config import ClusterConfig
from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.hand_over import KvSource
from envs.cluster.kv_pool import KvPool
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.queues import NodeQueues
from envs.cluster.request import Phase, Request
from envs.cluster.span import Span, steps_up_to
from envs.cluster.step_budget import StepBudget
from hardware_profiles import StepLaw

PREEMPTED = Phase.PREEMPTED  # looking up a module's global is faster than looking up an enum's member


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler(NodeQueues):
    """The queues of one engine, and the plan of its next steps.

    Attributes:
        step: the prompt chunks of the planned step.
        prefix_hit_tokens: prompt tokens taken from the node's prefix cache so far.
        preemptions: number of preemptions so far.

    Args:
        node: index of the engine's node.
        config: limits and step budget.
        kv: the node's KV memory.
        batch: the node's decode batch.
        lifecycle: is notified of changes of phase.
        source: sends KV to the node.
    """

    __slots__ = (
        "_lifecycle",
        "_max_seqs",
        "_node",
        "_preempted_s",
        "_source",
        "_streams_from",
        "_token_budget",
        "preemptions",
        "prefix_hit_tokens",
        "step",
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
        super().__init__(kv, batch)
        self._node = node
        self._lifecycle = lifecycle
        self._source = source
        self._streams_from = node if config.kv_streaming else -1
        self._token_budget = config.token_budget
        self._max_seqs = config.max_seqs
        self.step = StepBudget(config)
        self.prefix_hit_tokens = 0
        self.preemptions = 0
        self._preempted_s = -1.0  # time of the last preemption

    def copy_state(self, other: "Scheduler", twins: Mapping[Request, Request]) -> None:
        """Copy another scheduler's queues and plan; `twins` maps its requests to their copies."""
        self.copy_queues(other, twins)
        self.step.copy_state(other.step, twins)
        self.prefix_hit_tokens = other.prefix_hit_tokens
        self.preemptions = other.preemptions
        self._preempted_s = other._preempted_s

    def plan(self, law: StepLaw, span: Span, now_s: float) -> None:
        """Plan the steps from `now_s` on and store them in `span`; it has 0 steps if there is nothing to do."""
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
        step = self.step
        if self.prefilling or self.prompts or self.awaiting:
            if ready and step.bounded and not preempted:
                self._join_ready(self._token_budget - decoding)
            chunk_steps = 1 if self._begin_only_prompt(preempted) else self._choose_chunks(law, preempted)
            decoding = len(members)
            tokens = decoding + step.chunk_tokens
        else:
            chunk_steps = 0
            if ready and not preempted:
                self._join_ready(self._token_budget - decoding)
                decoding = len(members)
            tokens = decoding
        if not tokens:
            if preempted:  # nothing runs, so the preempted requests may start again
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
                steps = int((line_end - kv_tokens) // decoding) + 1  # from there on the law has a different slope
            room = kv.capacity_tokens - kv.used_tokens
            if steps * decoding > room:
                steps = room // decoding
        else:
            steps = chunk_steps
            growth_s = 0.0
        if chunk_steps:
            first_s += law.chunk_const_s
            for request, n in step.chunks:
                first_s += law.attention_s(n, request.computed_tokens)
            if steps > 1:
                n = step.chunk_tokens
                growth_s += law.attention_growth_s(n)
                if decoding and step.bounded and n > step.grain_tokens:
                    steps = steps_up_to(step.slo_share * batch.tbt_slo_s, steps, first_s, growth_s) or 1
        if preempted and (ready or self.prompts or self.awaiting):
            steps = 1  # waiting requests may be admitted after this step
        span.begin(now_s, steps, first_s, growth_s)

    def _preempt(self, now_s: float) -> None:
        """Preempt the request that joined the batch last: free its KV and queue it before all waiting requests."""
        request, kv_tokens = self.batch.take_youngest(now_s)
        self.kv.release(kv_tokens)
        self._lifecycle.preempted(request)
        self.computed_tokens -= (
            request.target_tokens
        )  # computed again, but not in enqueued_tokens, as no router sent it
        request.turn = 0
        self.prompts.appendleft(request)
        self.preemptions += 1
        self._preempted_s = now_s

    def _join_ready(self, budget: int) -> int:
        """Add requests whose KV has arrived to the batch, within a token budget; returns their number."""
        batch = self.batch
        free = self._max_seqs - len(batch.members) - len(self.prefilling)
        if free > budget:
            free = budget
        joined = 0
        ready = self.ready
        while ready and joined < free:
            batch.join(ready.popleft(), fresh=True)
            joined += 1
        self.kv.release(joined)  # the step itself takes the token that was reserved for each
        return joined

    def _begin_only_prompt(self, preempted: bool) -> bool:
        """Start a prompt if it is the only candidate and fits into the step; otherwise return False.

        `_choose_chunks` gives the same result at twice the cost (this saves 2 % of the bytecodes of a run with
        `static`).
        """
        prompts = self.prompts
        if len(prompts) != 1 or self.prefilling or self.awaiting or self.ready or preempted:
            return False
        request = prompts[0]
        tokens = request.target_tokens
        decoding = len(self.batch.members)
        if decoding and (self.step.bounded or decoding >= self._max_seqs):
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
        self.step.give_whole(request)
        return True

    def _choose_chunks(self, law: StepLaw, preempted: bool) -> int:
        """Choose the chunks of the next step and admit requests.

        Returns:
            The number of steps for which the choice holds; 0 if there is no chunk.
        """
        step = self.step
        step.begin(law, self.batch)
        for request in self.prefilling:
            if request.chunk_plan and step.chunks:
                step.open = False
            if not step.open:
                break
            step.give(law, request, request.computed_tokens)
        if not preempted:
            if self.ready and not step.bounded and step.tokens_left > 0:
                step.tokens_left -= self._join_ready(step.tokens_left)
            if (self.prompts or self.awaiting) and (step.bounded or step.tokens_left > 0):
                self._let_in(law)
        if self.awaiting:
            self._source.wait(self._node)
        return step.steps_held(self._streams_from)

    def _let_in(self, law: StepLaw) -> None:
        """Admit waiting requests in order: start prompts with a chunk, and reserve room for KV and have it sent."""
        step = self.step
        prompts = self.prompts
        awaiting = self.awaiting
        decoding = len(self.batch.members)
        free = self._max_seqs - decoding - len(self.prefilling)
        while free > 0 and (step.bounded or step.tokens_left > 0):
            if prompts and (not awaiting or prompts[0].turn < awaiting[0].turn):
                request = prompts[0]
                if step.open and not (request.chunk_plan and step.chunks):
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
            tokens = request.target_tokens + (request.rest_tokens or 1)  # the whole split prompt, or one more token
            if not self.kv.take(tokens, decoding):
                return
            awaiting.popleft()
            self.inbound += 1
            self._lifecycle.reserved(request, tokens)
            self._source.send(request)

    def _begin(self, law: StepLaw, request: Request) -> bool:
        """Start a prompt that has KV reserved if the step has a chunk for it; otherwise free the KV."""
        cached = self._source.cached_tokens(request, self._node) if request.block_hashes else 0
        plan = request.chunk_plan
        if cached and plan:  # drop the chunks that the cache covers; the others were planned for their contexts
            planned = covered = 0
            while planned < cached and covered < len(plan) - 1:
                planned += plan[covered]
                covered += 1
            request.chunk_plan = plan[covered:]
        if not self.step.give(law, request, cached):
            self.kv.release(request.target_tokens)
            return False
        if cached:
            request.computed_tokens = cached
            self.prefix_hit_tokens += cached
        self.computed_tokens += cached - request.known_hit_tokens
        request.kv_tokens = request.target_tokens
        self.prefilling.append(request)
        self._lifecycle.began(request)
        return True
