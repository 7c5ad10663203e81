"""An engine of the reference simulator: its queue, its KV and a scheduler that plans one step at a time."""

from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Any

from envs.cluster import ClusterConfig
from envs.workload import HASH_BLOCK_TOKENS
from hardware_profiles import StepLaw


@dataclass(eq=False)
class Job:
    """A request and its history."""

    number: int
    arrival_s: float
    prompt: int
    output: int
    tbt_slo_s: float
    hashes: tuple[int, ...]
    prefill_node: int = -1
    decode_node: int = -1
    at: int = -1  # node whose loss displaces it; -1 before arrival and after the end
    target: int = 0  # tokens to compute on the prefill node
    rest: int = 0  # tokens of a split prompt that its decode node computes once the first part has arrived
    plan: tuple[int, ...] = ()
    rest_plan: tuple[int, ...] = ()
    computed: int = 0
    context: int = 0  # in the decode batch
    asked: bool = False  # asks its decode node for KV that has not arrived completely
    reserved: int = 0  # tokens of KV reserved on its decode node until all has arrived
    sent: int = 0  # tokens of `target` that are on the decode node or on their way
    hold_end_s: float = inf
    preempted: bool = False  # waits to be computed again
    preemptions: int = 0
    prefill_start_s: float = nan
    prefill_end_s: float = nan
    kv_ready_s: float = nan
    tokens_s: list[float] = field(default_factory=list)

    def computed_blocks(self) -> tuple[int, ...]:
        """Blocks for a prefix cache; for a split prompt's first part, only whole blocks."""
        return self.hashes[: self.target // HASH_BLOCK_TOKENS] if self.rest else self.hashes


@dataclass(eq=False)
class Node:
    """An engine: its requests, its KV, and the step in progress or being planned."""

    cluster: Any  # the `Reference`, which has the time and the counters
    config: ClusterConfig
    index: int
    law: StepLaw
    capacity: int
    cache_blocks: int
    lost: bool = False
    waiting: list[tuple[Job, bool]] = field(
        default_factory=list
    )  # (request, whether it asks for KV; otherwise it is a prompt)
    prefilling: list[Job] = field(default_factory=list)
    ready: list[Job] = field(default_factory=list)
    batch: list[Job] = field(default_factory=list)
    cache: list[int] = field(default_factory=list)  # least recently used block first
    used: int = 0
    chunks: list[tuple[Job, int]] = field(default_factory=list)
    budget: int = 0
    closed: bool = False  # no other prompt gets a chunk in this step
    end_s: float = inf  # of the step in progress
    step_s: float = 0.0
    counts: list[str] = field(default_factory=list)  # counters that the step increments
    busy_s: float = 0.0

    @property
    def slo(self) -> bool:
        return self.config.step_budget == "slo"

    def batch_kv(self) -> int:
        return sum(job.context for job in self.batch)

    def slo_s(self) -> float:
        return min((job.tbt_slo_s for job in self.batch), default=inf)

    def use_blocks(self, hashes: tuple[int, ...]) -> None:
        for block in reversed(hashes):
            self.cache = [*[other for other in self.cache if other != block], block]
        del self.cache[: max(0, len(self.cache) - self.cache_blocks)]

    def hit(self, job: Job) -> int:
        blocks = 0
        while blocks < len(job.hashes) and job.hashes[blocks] in self.cache:
            blocks += 1
        return min(blocks * HASH_BLOCK_TOKENS, job.prompt, job.target - 1)

    # ---- the scheduler ----------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        preempted = False
        while self.capacity - self.used < len(self.batch):
            self.preempt()
            preempted = True
        self.chunks = []
        self.closed = False
        self.budget = self.config.token_budget - len(self.batch)
        if self.slo and not preempted:
            self.join()
        for job in self.prefilling:
            enough = len(self.chunks) in (
                self.config.max_prompts,
                self.config.max_seqs - len(self.batch),
            )
            if job.plan and self.chunks:
                self.closed = True
            if enough or self.closed or self.budget == 0:
                break
            self.take_chunk(job, self.chunk_tokens(job, job.computed, job.plan))
        if not self.slo and not preempted:
            self.join()
        if not preempted:
            self.admit()
        if self.batch or self.chunks:
            self.start_step()
        elif preempted:
            self.schedule()

    def preempt(self) -> None:
        job = self.batch.pop()
        self.used -= job.context
        job.target = job.prompt + len(job.tokens_s)
        job.computed = 0
        job.plan = ()
        job.preempted = True
        job.preemptions += 1
        self.cluster.counts["preemptions"] += 1
        self.waiting.insert(0, (job, False))

    def join(self) -> None:
        while self.ready and len(self.batch) + len(self.prefilling) < self.config.max_seqs:
            if not self.slo and self.budget == 0:
                return
            self.used -= 1
            self.budget -= 1
            self.decode(self.ready.pop(0))

    def decode(self, job: Job) -> None:
        job.context = job.target
        self.batch.append(job)

    def chunk_tokens(self, job: Job, computed: int, plan: tuple[int, ...]) -> int:
        """Tokens of the next chunk of a prompt; 0 if it gets none in this step."""
        most = min(job.target - computed, self.budget)
        if plan:
            return min(plan[0], most)
        if not self.slo or not self.batch:
            return most
        limit_s = self.config.slo_share * self.slo_s()

        def fits(tokens: int) -> bool:
            chunks = [*[(n, other.computed) for other, n in self.chunks], (tokens, computed)]
            return self.law.time_s(chunks, len(self.batch), self.batch_kv()) <= limit_s

        if fits(most):
            return most
        grain = self.config.chunk_grain_tokens
        for tokens in range((most - 1) // grain * grain, 0, -grain):
            if fits(tokens):
                return tokens
        return 0 if self.chunks else min(grain, most)

    def take_chunk(self, job: Job, tokens: int) -> None:
        if tokens:
            self.chunks.append((job, tokens))
            self.budget -= tokens
        if job.plan or tokens < job.target - job.computed:
            self.closed = True

    def admit(self) -> None:
        """Reserve KV for the waiting requests in order while there is room."""
        for job, asks in list(self.waiting):
            full = len(self.batch) + len(self.prefilling) >= self.config.max_seqs
            if full or (not self.slo and self.budget == 0):
                return
            if asks:
                needed = job.target + (job.rest or 1)
                if not self.admits(needed):
                    return
                self.waiting.remove((job, True))
                self.cluster.reserve(self, job, needed)
                continue
            if self.budget == 0 or len(self.chunks) == self.config.max_prompts or (job.plan and self.chunks):
                self.closed = True
            if not self.closed:
                if not self.admits(job.target):
                    return
                hit = self.hit(job)
                plan, planned = job.plan, 0
                while planned < hit and len(plan) > 1:
                    planned += plan[0]
                    plan = plan[1:]
                tokens = self.chunk_tokens(job, hit, plan)
                if tokens:
                    self.waiting.remove((job, False))
                    self.prefilling.append(job)
                    self.used += job.target
                    job.computed, job.plan, job.preempted = hit, plan, False
                    self.cluster.counts["prefix_hit_tokens"] += hit
                    self.take_chunk(job, tokens)
                    continue
                self.closed = True
            if job.preempted:
                return

    def admits(self, tokens: int) -> bool:
        spare = int(self.config.kv_watermark * self.capacity) if self.used else 0
        return self.used + tokens + len(self.batch) <= self.capacity - spare

    # ---- steps ------------------------------------------------------------------------------------------------------

    def start_step(self) -> None:
        batch, kv, slo_s = len(self.batch), self.batch_kv(), self.slo_s()
        self.step_s = self.law.time_s([(n, job.computed) for job, n in self.chunks], batch, kv)
        self.end_s = self.cluster.now + self.step_s
        for job, _ in self.chunks:
            if isnan(job.prefill_start_s):
                job.prefill_start_s = self.cluster.now
        self.counts = []
        if batch and self.chunks:
            self.counts.append("chunk_steps")
            if self.step_s > slo_s:
                self.counts.append("chunk_steps_over_slo")
                if self.law.time_s([], batch, kv) > slo_s:
                    self.counts.append("over_slo_decode_alone")
                elif self.slo and sum(n for _, n in self.chunks) <= self.config.chunk_grain_tokens:
                    self.counts.append("over_slo_minimum")

    def end_step(self) -> None:
        self.end_s = inf
        self.busy_s += self.step_s
        self.cluster.counts.update(self.counts)
        for job in list(self.batch):
            job.context += 1
            self.used += 1
            self.give_token(job)
            if job.at == -1:
                self.batch.remove(job)
                self.used -= job.context
        for job, n in self.chunks:
            job.computed += n
            job.plan = job.plan[1:] or job.plan
            if job.computed == job.target:
                self.prefilling.remove(job)
                self.prompt_computed(job)
        if self.config.kv_streaming:
            partly = [job for job in self.prefilling if job.computed and job.decode_node != self.index]
            if partly:
                self.cluster.tell_decode_node(partly[0])

    def give_token(self, job: Job) -> None:
        job.tokens_s.append(self.cluster.now)
        if len(job.tokens_s) == job.output:
            job.at = -1

    def prompt_computed(self, job: Job) -> None:
        if isnan(job.prefill_end_s):
            job.prefill_end_s = self.cluster.now
        self.use_blocks(job.computed_blocks())
        if job.decode_node != self.index:
            if not job.reserved:
                job.hold_end_s = self.cluster.now + self.config.kv_hold_s
            self.cluster.tell_decode_node(job)
            return
        if isnan(job.kv_ready_s):
            job.kv_ready_s = self.cluster.now
        self.give_token(job)
        if job.at == -1:
            self.used -= job.target
        else:
            self.decode(job)
