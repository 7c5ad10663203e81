"""A continuous-batching engine: prompt chunks and a decode batch share each step, whose time the step law gives.

Prefill nodes, decode nodes and colocated nodes have the same engine and differ only in the requests that they get. The
scheduler (`envs.cluster.scheduler`) runs at every step boundary, after all other events of that instant.

A run of steps whose composition cannot change is ONE event, a `Span`. An arrival during a span cuts it at the end of
the step in progress, and the scheduler runs there.
"""

from collections.abc import Mapping
from heapq import heappop
from math import inf

from mypy_extensions import mypyc_attr

from envs.cluster.call import Call
from envs.cluster.config import ClusterConfig
from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.gaps import GapLog
from envs.cluster.hand_over import HandOver
from envs.cluster.kv_pool import KvPool
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.request import Request
from envs.cluster.scheduler import Scheduler
from envs.cluster.slo_count import SloCount
from envs.cluster.span import Span
from envs.cluster.telemetry import PRUNE_AT, NodeReport, Telemetry
from envs.cluster.timeline import Timeline
from hardware_profiles import StepLaw


@mypyc_attr(allow_interpreted_subclasses=True)
class Engine:
    """The engine of a node.

    Attributes:
        index: the node's index.
        scheduler: the queues and the plan of the next steps.
        batch: the requests that decode.
        span: the steps in progress.
        telemetry: the snapshots for its reports.
        busy_s: time spent in finished spans, seconds.
        halted: the node is lost; the engine has no requests and gets none.
        slo_count: counts of steps with prompt tokens next to decodes, and of those over the TBT SLO.

    Args:
        index: the node's index.
        timeline: simulated time.
        law: durations of steps.
        kv_capacity_tokens: KV that fits.
        config: limits and options.
        gaps: log of the gaps between tokens.
        lifecycle: is notified of every change of a request's phase.
        hand_over: takes over computed prompts.
    """

    __slots__ = (
        "_at_boundary",
        "_hand_over",
        "_known_law",
        "_kv",
        "_law",
        "_lifecycle",
        "_max_seqs",
        "_measured_law",
        "_next_law",
        "_snapshots",
        "_speeds",
        "_streams",
        "_timeline",
        "_wake_call",
        "_wakes",
        "batch",
        "busy_s",
        "halted",
        "index",
        "scheduler",
        "slo_count",
        "span",
        "telemetry",
    )

    def __init__(
        self,
        index: int,
        timeline: Timeline,
        law: StepLaw,
        kv_capacity_tokens: int,
        config: ClusterConfig,
        gaps: GapLog,
        lifecycle: Lifecycle,
        hand_over: HandOver,
    ) -> None:
        self.index = index
        self._timeline = timeline
        self._law = self._next_law = self._known_law = self._measured_law = law
        self._speeds = [(-inf, 1.0)]  # since when its finished steps have had which speed, relative to the known law
        self._lifecycle = lifecycle
        self._hand_over = hand_over
        self._streams = config.kv_streaming
        self._max_seqs = config.max_seqs
        self._kv = KvPool(kv_capacity_tokens, config.kv_watermark)
        self.batch = DecodeBatch(gaps, lifecycle)
        self.scheduler = Scheduler(index, config, self._kv, self.batch, lifecycle, hand_over)
        self.telemetry = Telemetry(config.report_age_s)
        self._snapshots = self.telemetry.snapshots
        self.slo_count = SloCount(config.chunk_grain_tokens if config.step_budget == "slo" else 0)
        self.busy_s = 0.0
        self.halted = False
        self.span = Span()
        self._wakes: list[float] = []  # times of the pending calls of `_wake`, in decreasing order
        self._wake_call = Call(self._wake)
        self._at_boundary = False

    def copy_work(self, other: "Engine", twins: Mapping[Request, Request]) -> None:
        """Copy another engine's state; `twins` maps its requests to their copies."""
        self._law = other._law
        self._next_law = other._next_law
        self._measured_law = other._measured_law
        self._speeds = other._speeds.copy()
        self.scheduler.copy_state(other.scheduler, twins)
        self._snapshots.clear()
        self._snapshots.extend(other._snapshots)
        self.slo_count.copy_state(other.slo_count)
        self.busy_s = other.busy_s
        self.halted = other.halted
        self.span = other.span.copy()
        self._wakes = other._wakes.copy()

    # ---- what reaches an engine -------------------------------------------------------------------------------------

    def add_prompt(self, request: Request) -> None:
        """Queue a prompt for prefill."""
        scheduler = self.scheduler
        scheduler.add_prompt(request)
        # A later prompt does not change a span of chunks: the step's budget already cuts the current chunk short.
        if not scheduler.step.chunks or self._timeline.now_s <= self.span.start_s:
            self.attend()

    def add_expired(self, request: Request, sent_tokens: int) -> None:
        """Queue a prompt whose KV was dropped on its prefill node; a router sent `sent_tokens` of it here before."""
        self.scheduler.add_expired(request, sent_tokens)
        self.attend()

    def ask_for_kv(self, request: Request) -> None:
        """Queue a request that another node computed until there is room for its KV; then call `KvSource.send`."""
        self.scheduler.add_awaiting(request)
        self.attend()

    def reserve_ahead(self, request: Request) -> float:
        """Reserve KV now for a transfer that starts at the next step boundary; returns that time, seconds.

        This succeeds only if there is room for it whatever happens until then; otherwise it reserves nothing and
        returns -1.0. A success saves one run of the scheduler; this avoids a tenth of all events.
        """
        scheduler = self.scheduler
        if scheduler.prefilling or scheduler.prompts or scheduler.awaiting:
            return -1.0
        span = self.span
        steps = span.steps
        decoding = len(self.batch.members)
        max_seqs = self._max_seqs
        if decoding + len(scheduler.ready) + scheduler.inbound >= max_seqs:
            return -1.0
        tokens = request.target_tokens + (request.rest_tokens or 1)
        if not self._kv.take_surely(tokens, steps * decoding + max_seqs):
            return -1.0
        scheduler.inbound += 1
        self._lifecycle.reserved(request, tokens)
        now_s = self._timeline.now_s
        return span.boundary(now_s)[1] if steps else now_s

    def take_arrived(self, request: Request) -> None:
        """Accept a request whose KV has arrived completely."""
        self.scheduler.add_arrived(request)
        self.attend()

    def release(self, tokens: int) -> None:
        """Free KV that was transferred away or dropped."""
        scheduler = self.scheduler
        self._kv.release(tokens)
        if scheduler.prompts or scheduler.awaiting:
            self.attend()
        elif self.span.steps == 0 and not self._at_boundary:
            # An idle engine has nothing to schedule (this saves 1 % of a run's bytecodes).
            self.telemetry.idle(self._timeline.now_s, scheduler.computed_tokens, self._kv.used_tokens)

    def forget(self, request: Request) -> None:
        """Drop a request that was to come to this node."""
        if not self.halted:
            self.scheduler.forget(request)
            self.attend()

    def change_law(self, law: StepLaw) -> None:
        """Use another step law from the next step on."""
        self._next_law = law
        self.attend()

    def pause(self) -> None:
        """Do not run the scheduler until `resume`, because more happens at this instant."""
        self._at_boundary = True

    def resume(self) -> None:
        """End a `pause`: run the scheduler when it is due."""
        self._at_boundary = False
        self.attend()

    def halt(self) -> None:
        """Stop forever and drop all requests; finished steps count, the step in progress does not."""
        now_s = self._timeline.now_s
        span = self.span
        done = span.steps_over(now_s)
        last_token_s = span.boundary_s(done)
        self.pause()
        if done:
            span.begin(span.start_s, done, span.first_s, span.growth_s)
            self._finish_span(last_token_s)
        self.scheduler.clear(last_token_s)
        self.scheduler.step.clear()
        self.halted = True
        self._compose(now_s)

    # ---- spans ------------------------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Run the scheduler at the next step boundary, or at once if no step is in progress."""
        if self._at_boundary:
            return  # the scheduler is about to run
        now_s = self._timeline.now_s
        span = self.span
        planned = span.steps
        if planned == 0 or now_s <= span.start_s:
            self._compose(now_s)
        elif planned > 1:
            steps, end_s = span.boundary(now_s)
            if steps < planned:
                span.steps = steps
                span.end_s = end_s
                wakes = self._wakes  # _wake_by, inlined; there is always a call at the span's end
                if end_s < wakes[-1]:
                    wakes.append(end_s)
                    self._timeline.call_at(end_s, self._wake_call)

    def _compose(self, now_s: float) -> None:
        """Run the scheduler and begin the span that it plans."""
        scheduler = self.scheduler
        span = self.span
        law = self._law = self._next_law
        scheduler.plan(law, span, now_s)
        steps = span.steps
        if not steps:
            self.telemetry.idle(now_s, scheduler.computed_tokens, self._kv.used_tokens)
            return
        wakes = self._wakes  # _wake_by, inlined
        end_s = span.end_s
        if not wakes or end_s < wakes[-1]:
            wakes.append(end_s)
            self._timeline.call_at(end_s, self._wake_call)
        snapshots = self._snapshots
        if snapshots[-1][0] >= now_s:
            snapshots.pop()  # this instant was planned before
        batch = self.batch
        snapshots.append(
            (
                now_s,
                steps,
                span.first_s,
                span.growth_s,
                len(batch.members),
                batch.kv_tokens,
                scheduler.step.chunk_tokens,
                scheduler.computed_tokens,
                self._kv.used_tokens,
                batch.tbt_slo_s,
            )
        )
        if len(snapshots) > PRUNE_AT:
            self.telemetry.prune(now_s)

    def _wake_by(self, time_s: float) -> None:
        """Make sure that `_wake` is called at `time_s`; an earlier call schedules the later one."""
        wakes = self._wakes
        if not wakes or time_s < wakes[-1]:
            wakes.append(time_s)
            self._timeline.call_at(time_s, self._wake_call)

    def _wake(self, _event: object) -> None:
        now_s = self._wakes.pop()
        span = self.span
        if span.steps == 0:
            return
        if now_s < span.end_s:  # the span that ended now was cut, and the current one ends later
            self._wake_by(span.end_s)
            return
        self._at_boundary = True
        self._finish_span(now_s)
        self._at_boundary = False
        self._compose(now_s)

    def _finish_span(self, now_s: float) -> None:
        """Commit the span: advance its requests and pass on those that it finished."""
        span = self.span
        start_s = span.start_s
        steps = span.steps
        scheduler = self.scheduler
        batch = self.batch
        members = batch.members
        step = scheduler.step
        chunks = step.chunks
        self.busy_s += span.end_s - start_s
        if self._law is not self._measured_law:
            self._measure(now_s)
        if chunks:
            scheduler.computed_tokens += steps * step.chunk_tokens
            if members:
                count = self.slo_count
                count.chunk_steps += steps
                if span.first_s + (steps - 1) * span.growth_s > batch.tbt_slo_s:
                    count.count(self._law, span, batch, step.chunk_tokens)
            for request, n in chunks:
                if request.prefill_start_s != request.prefill_start_s:  # nan
                    request.prefill_start_s = start_s
                request.computed_tokens += steps * n
                if request.chunk_plan:
                    plan = request.chunk_plan
                    request.chunk_plan = plan[min(steps, len(plan) - 1) :]
        if members:
            kv_tokens = batch.advance(start_s, steps, span.first_s, span.growth_s)
            now_step = batch.step
            while members and members[0][0] == now_step:
                request = heappop(members)[2]
                kv_tokens -= batch.leave(request)
                self._lifecycle.finished(request, now_s)
            self._kv.used_tokens += kv_tokens  # the new tokens of the decodes minus the KV of finished requests
        span.steps = 0
        if chunks:
            step.clear()
            prefilling = scheduler.prefilling
            # Prompts get chunks in order, so complete ones come first.
            while prefilling:
                request = prefilling[0]
                if request.computed_tokens != request.target_tokens:
                    if self._streams and request.computed_tokens and request.decode_node != self.index:
                        self._hand_over.chunk_computed(request)
                    return
                del prefilling[0]
                if request.decode_node == self.index:
                    self._decode_here(request, now_s)
                else:
                    self._lifecycle.computed(request, now_s)
                    self._hand_over.prefilled(request)

    def _decode_here(self, request: Request, now_s: float) -> None:
        """Let a prompt that was computed on its decode node generate its next token and join the batch."""
        self._lifecycle.computed_here(request, now_s)
        self._hand_over.prefilled_here(request)
        request.generated_tokens += 1
        batch = self.batch
        batch.token(request, now_s)
        if request.generated_tokens == request.output_tokens:
            self._kv.release(request.kv_tokens)
            self._lifecycle.finished(request, now_s)
        else:
            batch.join(request, fresh=False)

    def _measure(self, now_s: float) -> None:
        """Note how much faster than known the steps are that ended now; it is the same for steps of all kinds."""
        self._measured_law = law = self._law
        self._speeds.append((now_s, self._known_law.chunk_step_s(1, 0.0) / law.chunk_step_s(1, 0.0)))

    def measured_speed(self, at_s: float) -> float:
        """Speed of the steps that were finished at `at_s`, relative to the law that the engine began with."""
        speeds = self._speeds
        i = len(speeds) - 1
        while speeds[i][0] > at_s:
            i -= 1
        return speeds[i][1]

    def report(self, at_s: float) -> NodeReport:
        """The node's report as of `at_s`, which is at most `ClusterConfig.report_age_s` ago."""
        return self.telemetry.report(at_s, self.scheduler.enqueued_tokens)

    def mean_generated_tokens(self) -> float:
        """Tokens from decode steps per request that decodes now; 0 if there is none."""
        return self.telemetry.mean_generated_tokens(self._timeline.now_s, self.batch.prompt_tokens)
