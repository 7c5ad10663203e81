"""One continuous-batching engine: prompt chunks and a decode batch share each step, by the step law.

Prefill node, decode node and colocated node are the same engine; what reaches it makes the difference. The rules are
those of vLLM's V1 scheduler: a step first takes one token for each decoding sequence, then chunks of the waiting
prompts in order, within the token budget. A step begins after everything that happens at its instant.

Steps whose composition cannot change are ONE event: a *span* is `steps` equal-shaped steps of durations
first_s, first_s + growth_s, ... (decode KV and a long prompt's context grow linearly, so do the steps). What arrives
in mid-span cuts it at the end of the step in progress.
"""

from collections import deque
from collections.abc import Mapping
from heapq import heappop
from math import inf, isnan, sqrt
from typing import Protocol

from envs.cluster.batch import DecodeBatch
from envs.cluster.clock import Call, Clock
from envs.cluster.gaps import GapLog
from envs.cluster.request import Sequence
from envs.cluster.spans import Snapshot, steps_up_to, whole_steps_within
from hardware_profiles import StepLaw

_HISTORY = 32  # snapshots between two prunings of those that are too old to be asked for

_PLAIN_STATE = (
    "_announce_after_preempted",
    "_announce_room",
    "_at_boundary",
    "_chunk_tokens",
    "_end_s",
    "_first_s",
    "_growth_s",
    "_start_s",
    "_steps",
    "_wake_s",
    "busy_s",
    "chunk_steps",
    "chunk_steps_over_slo",
    "computed_tokens",
    "enqueued_tokens",
    "kv_used_tokens",
    "law",
    "preemptions",
)


class Listener(Protocol):
    """What an engine tells the cluster."""

    def prefilled(self, seq: Sequence) -> None:
        """A prompt that decodes elsewhere is computed; its KV stays here until `Engine.release`."""

    def prefilled_here(self, seq: Sequence) -> None:
        """A prompt is computed on the node that decodes it."""

    def first_token(self, seq: Sequence) -> None:
        """`seq.first_token_s` has been set."""

    def finished(self, seq: Sequence) -> None:
        """The last token is out, the KV freed."""

    def cached_prefix(self, seq: Sequence, node: int) -> int:
        """How many tokens of a prompt with block hashes, about to be computed, the node's prefix cache spares it."""

    def chunk_computed(self, seq: Sequence) -> None:
        """A chunk of a prompt that decodes elsewhere is computed; only where `Engine.streams`."""

    def kv_room(self, node: int) -> None:
        """`Engine.reserve` refused for a reason that may have passed."""


class Engine:
    """A node's engine.

    Args:
        index: the node's index.
        clock: simulated time.
        law: durations of steps.
        kv_capacity_tokens: KV that fits.
        watermark_tokens: KV that new prompts and transfers leave free.
        token_budget: tokens of a step, decodes included.
        max_seqs: sequences of a step.
        max_prompts: prompts that may share a step.
        history_s: how far back a report may look.
        gaps: log of the gaps between tokens.
        listener: told of computed prompts, first tokens and finished sequences.
    """

    __slots__ = (
        "_announce_after_preempted",
        "_announce_room",
        "_at_boundary",
        "_chunk_tokens",
        "_chunks",
        "_end_s",
        "_first_s",
        "_growth_s",
        "_listener",
        "_start_s",
        "_steps",
        "_wake_call",
        "_wake_s",
        "_watermark_tokens",
        "batch",
        "busy_s",
        "chunk_steps",
        "chunk_steps_over_slo",
        "clock",
        "computed_tokens",
        "enqueued_tokens",
        "history",
        "history_s",
        "index",
        "kv_capacity_tokens",
        "kv_used_tokens",
        "law",
        "max_prompts",
        "max_seqs",
        "preemptions",
        "prompts",
        "ready",
        "streams",
        "token_budget",
    )

    def __init__(
        self,
        index: int,
        clock: Clock,
        law: StepLaw,
        kv_capacity_tokens: int,
        watermark_tokens: int,
        token_budget: int,
        max_seqs: int,
        max_prompts: int,
        history_s: float,
        gaps: GapLog,
        listener: Listener,
    ) -> None:
        self.index = index
        self.clock = clock
        self.law = law
        self.kv_capacity_tokens = kv_capacity_tokens
        self._watermark_tokens = watermark_tokens
        self.token_budget = token_budget
        self.max_seqs = max_seqs
        self.max_prompts = max_prompts
        self.history_s = history_s
        self._listener = listener
        self.streams = False  # tell of each chunk that is computed for another node, not of whole prompts only

        # Work: prompts in order, transferred sequences that wait to join, and the sequences that decode.
        self.prompts: deque[Sequence] = deque()
        self.ready: deque[Sequence] = deque()
        self.batch = DecodeBatch(gaps, listener.first_token)
        self.kv_used_tokens = 0
        self.enqueued_tokens = 0  # prompt tokens that ever came, and of them those computed
        self.computed_tokens = 0

        # The span in progress (steps == 0: idle). It may start in the future, at the end of a step in progress.
        self._start_s = 0.0
        self._steps = 0
        self._first_s = 0.0
        self._growth_s = 0.0
        self._end_s = 0.0
        self._wake_s = inf
        self._wake_call = Call(self._wake)
        self._chunks: list[tuple[Sequence, int]] = []
        self._chunk_tokens = 0
        self._announce_room = False  # at the next step boundary
        self._announce_after_preempted = False  # at the one after the first preempted sequence has begun again
        self._at_boundary = False
        self.history: deque[Snapshot] = deque([(0.0, 0, 0.0, 0.0, 0, 0, 0, 0, 0, inf)])

        self.busy_s = 0.0
        self.preemptions = 0
        self.chunk_steps = 0  # that carried a deflected chunk beside a decode, and of them those over the SLO
        self.chunk_steps_over_slo = 0

    def copy_work(self, other: "Engine", twins: Mapping[Sequence, Sequence]) -> None:
        """Take over another engine's state, with the sequences that `twins` gives for its own."""
        for name in _PLAIN_STATE:
            setattr(self, name, getattr(other, name))
        self.prompts = deque([twins[seq] for seq in other.prompts])
        self.ready = deque([twins[seq] for seq in other.ready])
        self.batch.copy_state(other.batch, twins)
        self._chunks = [(twins[seq], n) for seq, n in other._chunks]
        self.history = other.history.copy()

    # ---- what reaches an engine ---------------------------------------------------------------------------------

    def add_prompt(self, seq: Sequence) -> None:
        """Queue a prompt for prefill."""
        self.prompts.append(seq)
        self.enqueued_tokens += seq.target_tokens
        # A span that computes chunks is not changed by a later prompt: its own prompt fills the budget or its plan.
        if not self._chunks or self._start_s >= self.clock._now:
            self._cut()

    def add_rest(self, seq: Sequence) -> None:
        """Queue the rest of a split prompt, the KV of whose first part has come and all of whose KV is reserved.

        It has been counted among `enqueued_tokens` since it was placed.
        """
        seq.prefilled_tokens = seq.target_tokens
        seq.target_tokens += seq.rest_tokens
        seq.kv_tokens = seq.target_tokens
        seq.chunk_plan = seq.rest_plan
        prompts = self.prompts
        index = self._first_without_kv()
        if self._start_s >= self.clock._now:  # those that only the coming step was to begin do not hold theirs yet
            while index and prompts[index - 1].prefilled_tokens == prompts[index - 1].hit_tokens:
                index -= 1
        prompts.insert(index, seq)
        if not self._chunks or self._start_s >= self.clock._now:
            self._cut()

    def reserve_ahead(self, tokens: int) -> bool:
        """Reserve KV for a transfer that begins at the next step boundary; False where that must be seen then.

        Only where half of the KV stays free: whatever else claims some by then, there is room for both.
        """
        held = self.kv_used_tokens + tokens
        if 2 * held > self.kv_capacity_tokens - self._watermark_tokens:
            return False
        self.kv_used_tokens = held
        return True

    def reserve(self, tokens: int) -> bool:
        """Reserve KV for a transfer; False where it does not fit now.

        After a refusal the listener hears of `finished` sequences, whose KV is free, and where the refusal was for
        another reason than room, of `kv_room` at the next step boundary.
        """
        decoding = len(self.batch.members)
        grown = (self._steps or 1) * decoding
        tight = self.kv_used_tokens + grown + tokens > self.kv_capacity_tokens - self._watermark_tokens
        if tight:
            # The span was planned into this room: end it early to see what is left, and plan again with that.
            self._cut()
            if self._start_s > self.clock._now or (self._steps and self._start_s < self.clock._now):
                self._announce_room = True  # a step is under way: ask again when it ends
                return False
        if self.prompts:
            queued = self._first_without_kv()
            if queued < len(self.prompts) and self.prompts[queued].preemptions:
                self._announce_after_preempted = True  # it goes first
                return False
        if not self._admits(tokens + decoding):
            return False
        self.kv_used_tokens += tokens
        if tight:
            self._cut()
        return True

    def _admits(self, tokens: int) -> bool:
        """Whether there is room for more KV; the watermark stays free, but for what would be here alone."""
        held = self.kv_used_tokens
        return held + tokens <= self.kv_capacity_tokens - (self._watermark_tokens if held else 0)

    def join(self, seq: Sequence) -> None:
        """Take a sequence whose KV has arrived (and was reserved) into the decode batch."""
        seq.kv_tokens = seq.target_tokens
        self.ready.append(seq)
        self._cut()

    def release(self, tokens: int) -> None:
        """Free KV that has been transferred away."""
        self.kv_used_tokens -= tokens
        if self._steps == 0:
            if self.prompts:
                self._cut()
            else:
                now = self.clock._now
                self.history.append((now, 0, 0.0, 0.0, 0, 0, 0, self.computed_tokens, self.kv_used_tokens, inf))

    def unreserve(self, tokens: int) -> None:
        """Free KV that was reserved for a transfer that will not come."""
        self.kv_used_tokens -= tokens
        self._cut()

    def change_law(self, law: StepLaw) -> None:
        """Run by another law from the next step on."""
        self.law = law
        self._cut()

    def halt(self) -> list[Sequence]:
        """Stop for good and hold nothing; steps that are over count, the one in progress does not.

        Returns:
            The sequences that were here, with the tokens they have given; those in transfer hereto are not among them.
        """
        now = self.clock._now
        if self._steps and self._start_s < now:
            done = whole_steps_within(now - self._start_s, self._steps, self._first_s, self._growth_s)
            if done:
                self._commit(done)
        lost = [*self.prompts, *self.ready, *self.batch.take_all(now)]
        self.prompts.clear()
        self.ready.clear()
        self._announce_room = False
        self._chunks = []
        self._chunk_tokens = self.kv_used_tokens = self._steps = 0
        self.computed_tokens = self.enqueued_tokens
        self._compose(now)
        return lost

    # ---- spans --------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """End the span at the first step boundary not before now and compose anew from there."""
        if self._at_boundary:
            return
        now = self.clock._now
        start = self._start_s
        steps = self._steps
        if steps == 0:
            self._compose(now if now > start else start)
        elif start >= now:
            self._compose(start)
        elif steps > 1:
            done = self._boundary(now)
            if done < steps:
                self._compose(self._commit(done))

    def _boundary(self, now: float) -> int:
        """After how many of the span's steps its first boundary not before `now` comes."""
        start = self._start_s
        first = self._first_s
        growth = self._growth_s
        if growth:  # `steps_within`, inlined
            linear = first - 0.5 * growth
            elapsed = now - start
            last = int(2.0 * elapsed / (linear + sqrt(linear * linear + 2.0 * growth * elapsed)))
        else:
            last = int((now - start) / first)
        # Rounding may leave it one off either way; a boundary at now is the one.
        while last and start + (last * first + growth * (last * (last - 1) // 2)) >= now:
            last -= 1
        done = last + 1
        while start + (done * first + growth * (done * last // 2)) < now:
            last = done
            done += 1
        return done

    def next_schedule_s(self) -> float:
        """When the engine's scheduler runs next: at the first step boundary not before now, at once where it idles."""
        now = self.clock._now
        start = self._start_s
        if self._steps == 0 or start >= now:
            return now if now > start else start
        done = self._boundary(now)
        if done >= self._steps:
            return self._end_s
        return start + (done * self._first_s + self._growth_s * (done * (done - 1) // 2))

    def _compose(self, start: float) -> None:
        """Plan the span that starts at `start`; the engine's state is that of this instant."""
        decodes = self.batch
        members = decodes.members
        ready = self.ready
        if ready:
            while ready and len(members) < self.max_seqs:
                decodes.join(ready.popleft(), fresh=True)
        batch = len(members)
        room = self.kv_capacity_tokens - self.kv_used_tokens
        while room < batch:
            if start > self.clock._now:
                self._plan_at(start)  # what else comes before then has a say in who is preempted
                return
            self._preempt(start)
            batch = len(members)
            room = self.kv_capacity_tokens - self.kv_used_tokens
        law = self.law
        tokens = batch
        steps = 0
        first = growth = 0.0
        kv_tokens = decodes.kv_tokens
        if batch:
            steps = members[0][0] - decodes.step
            base_s, kv_s, line_end = law.decode_line(batch, kv_tokens)
            first = base_s + kv_s * kv_tokens
            growth = kv_s * batch
            if kv_tokens + steps * batch > line_end:
                steps = int((line_end - kv_tokens) // batch) + 1  # from there on the law has another slope
        if self.prompts and (chunk_steps := self._choose_chunks(batch)):
            if not batch or chunk_steps < steps:
                steps = chunk_steps
            tokens += self._chunk_tokens
            first += law.chunk_const_s
            chunks = self._chunks
            for seq, n in chunks:
                first += seq.prefilled_tokens * (law.chunk_context_s * n + law.chunk_reread_s)
                first += law.chunk_self_s * 0.5 * n * n
            if chunk_steps > 1:
                n = chunks[0][1]
                growth += n * (law.chunk_context_s * n + law.chunk_reread_s)
            room = self.kv_capacity_tokens - self.kv_used_tokens
        elif self._chunks:
            self._chunks = []
            self._chunk_tokens = 0
        if steps * batch > room:
            steps = room // batch
        if steps > 1 and (self._announce_room or (ready and batch < self.max_seqs)):
            steps = 1  # a preemption has made room for the next step, not for this one
        self._start_s = start
        self._steps = steps
        if steps:
            first += law.token_time_s[tokens]
            self._first_s = first
            self._growth_s = growth
            self._end_s = end = start + (steps * first + growth * (steps * (steps - 1) // 2))
            if end < self._wake_s:
                self._wake_s = end
                self.clock.call_at(end, self._wake_call)
        history = self.history
        if history[-1][0] >= start:
            history.pop()  # composed anew for the same instant
        history.append(
            (
                start,
                steps,
                first,
                growth,
                batch,
                kv_tokens,
                self._chunk_tokens,
                self.computed_tokens,
                self.kv_used_tokens,
                decodes.tbt_slo_s,
            )
        )
        if len(history) > _HISTORY:
            horizon = self.clock._now - self.history_s
            while len(history) > 1 and history[1][0] <= horizon:
                history.popleft()

    def _plan_at(self, start: float) -> None:
        """Let the step in progress end at `start` and compose only then."""
        self._start_s = start
        self._steps = 0
        if start < self._wake_s:
            self._wake_s = start
            self.clock.call_at(start, self._wake_call)

    def _choose_chunks(self, batch: int) -> int:
        """Choose the chunks of the next step; returns for how many steps the same choice holds (0: no chunk).

        Prompts are taken in order and hold KV for their whole length from their first chunk on. A prompt with a chunk
        plan shares its steps with decodes only: the plan is what keeps their TBT safe.
        """
        chunks: list[tuple[Sequence, int]] = []
        budget = self.token_budget - batch
        slots = self.max_seqs - batch
        if slots > self.max_prompts:
            slots = self.max_prompts
        steps = 1
        for seq in self.prompts:
            plan = seq.chunk_plan
            if len(chunks) == slots or (plan and chunks):
                break
            target = seq.target_tokens
            if not seq.kv_tokens:
                if not self._admits(target + batch):
                    break
                seq.kv_tokens = target
                self.kv_used_tokens += target
                if seq.preemptions and self._announce_after_preempted:
                    self._announce_after_preempted = False
                    self._announce_room = True
                if seq.block_hashes:
                    self.computed_tokens += self._listener.cached_prefix(seq, self.index)
                    plan = seq.chunk_plan
            remaining = target - seq.prefilled_tokens
            if plan:
                n = min(plan[0], remaining, budget)
                chunks.append((seq, n))
                if n == plan[0]:
                    limit = remaining // n
                    if len(plan) == 1:
                        steps = limit
                    else:
                        while steps < limit and steps < len(plan) and plan[steps] == n:
                            steps += 1
                break
            n = remaining if remaining < budget else budget
            chunks.append((seq, n))
            budget -= n
            if budget == 0:
                if len(chunks) == 1:
                    steps = remaining // n
                break
        self._chunks = chunks
        self._chunk_tokens = chunks[0][1] if len(chunks) == 1 else sum([n for _, n in chunks])
        if self.streams and steps > 1 and chunks[0][0].decode_node != self.index:
            return 1  # each step's end is an event: it has KV to send
        return steps if chunks else 0

    def _commit(self, steps: int) -> float:
        """Make the span's first `steps` steps history; returns when they end."""
        start = self._start_s
        first = self._first_s
        growth = self._growth_s
        end = start + (steps * first + growth * (steps * (steps - 1) // 2))
        self.busy_s += end - start
        decodes = self.batch
        batch = len(decodes.members)
        if batch:
            decodes.advance(start, steps, first, growth)
            self.kv_used_tokens += steps * batch
        chunks = self._chunks
        if chunks:
            self.computed_tokens += steps * self._chunk_tokens
            for seq, n in chunks:
                done = seq.prefilled_tokens
                if done == seq.hit_tokens and isnan(seq.prefill_start_s):
                    seq.prefill_start_s = start
                seq.prefilled_tokens = done + steps * n
                plan = seq.chunk_plan
                if plan and len(plan) > 1:
                    seq.chunk_plan = plan[min(steps, len(plan) - 1) :]
            if batch:
                head = chunks[0][0]
                if head.decode_node == self.index and not head.preemptions:
                    self.chunk_steps += steps
                    self.chunk_steps_over_slo += steps - steps_up_to(decodes.tbt_slo_s, steps, first, growth)
        return end

    def _wake(self, _event: object) -> None:
        now = self.clock._now
        if now != self._wake_s:
            return  # superseded by an earlier wake
        self._wake_s = inf
        due_s = self._end_s if self._steps else self._start_s
        if now < due_s:
            # What was planned for now has been put off since.
            self._wake_s = due_s
            self.clock.call_at(due_s, self._wake_call)
            return
        self._at_boundary = True  # what the listener does now is planned below, once
        if self._steps:
            self._finish_span(now)
        if self._announce_room:
            self._announce_room = False
            self._listener.kv_room(self.index)
        self._at_boundary = False
        self._compose(now)

    def _finish_span(self, now: float) -> None:
        """Make the whole span history and let go of what it finished."""
        self._commit(self._steps)
        self._steps = 0
        self._start_s = now
        decodes = self.batch
        members = decodes.members
        step = decodes.step
        while members and members[0][0] == step:
            seq = heappop(members)[2]
            self.kv_used_tokens -= decodes.leave(seq)
            seq.generated_tokens = seq.output_tokens
            seq.last_token_s = now
            self._listener.finished(seq)
        if self._chunks:
            prompts = self.prompts
            self._chunks = []
            self._chunk_tokens = 0
            while prompts and prompts[0].prefilled_tokens == prompts[0].target_tokens:
                self._prompt_done(prompts.popleft(), now)
            if self.streams and prompts and prompts[0].prefilled_tokens and prompts[0].decode_node != self.index:
                self._listener.chunk_computed(prompts[0])

    # ---- sequences ----------------------------------------------------------------------------------------------

    def _preempt(self, now: float) -> None:
        """Take the youngest decoding sequence out of the batch, free its KV and queue it for recomputation."""
        seq, kv_tokens = self.batch.take_youngest(now)
        self.kv_used_tokens -= kv_tokens
        seq.preemptions += 1
        self.preemptions += 1
        seq.chunk_plan = ()
        seq.prefilled_tokens = 0
        seq.target_tokens = seq.prompt_tokens + seq.generated_tokens
        self.computed_tokens -= seq.target_tokens  # to be done again; no router has sent it, so it is not enqueued
        # Ahead of all that wait, but behind the prompts that run: they hold KV that it may need.
        self.prompts.insert(self._first_without_kv(), seq)

    def _first_without_kv(self) -> int:
        """Index of the first prompt that holds no KV yet; those that do come first."""
        for index, seq in enumerate(self.prompts):
            if not seq.kv_tokens:
                return index
        return len(self.prompts)

    def _prompt_done(self, seq: Sequence, now: float) -> None:
        """A prompt is computed: hand it over, or give its next token here."""
        if seq.decode_node != self.index:
            if isnan(seq.prefill_end_s):
                seq.prefill_end_s = now
            self._listener.prefilled(seq)
            return
        self._listener.prefilled_here(seq)
        seq.generated_tokens += 1
        if isnan(seq.prefill_end_s):
            seq.prefill_end_s = seq.kv_ready_s = now
        self.batch.token(seq, now)
        if seq.generated_tokens == seq.output_tokens:
            self.kv_used_tokens -= seq.kv_tokens
            seq.last_token_s = now
            self._listener.finished(seq)
        else:
            self.batch.join(seq, fresh=False)

    # ---- measures -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Stamp the first tokens that are out by now although their span still runs."""
        if self.batch.fresh and self._start_s + self._first_s <= self.clock._now:
            self.batch.stamp_first_tokens(self._start_s + self._first_s)

    def tbt_excess(self) -> float:
        """Sum over all gaps that have closed by now of (gap - SLO) / SLO where positive."""
        elapsed_s = self.clock._now - self._start_s
        over = -1 if elapsed_s < 0.0 else 0  # a cut has counted the step in progress
        if elapsed_s > 0.0 and self._steps and self.batch.members:
            over = whole_steps_within(elapsed_s, self._steps, self._first_s, self._growth_s)
        return self.batch.tbt_excess(over, self._first_s, self._growth_s)

    def busy_now_s(self) -> tuple[float, float]:
        """Time spent in steps by now, and how long the step under way lasts (0 where there is none), seconds."""
        now = self.clock._now
        start_s = self._start_s
        busy_s = self.busy_s
        if start_s > now:
            busy_s -= start_s - now  # a cut has counted the step in progress
        elif self._steps:
            busy_s += now - start_s
        history = self.history
        i = len(history) - 1
        while i and history[i][0] > now:
            i -= 1
        start_s, steps, first_s, growth_s = history[i][:4]
        done = whole_steps_within(now - start_s, steps, first_s, growth_s) if steps else 0
        return busy_s, first_s + done * growth_s if done < steps else 0.0
