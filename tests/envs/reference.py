"""The cluster again, step by step and as plainly as can be: what the coalescing engine is held against.

Every decode step is an event, every context a sum over sequences, every link share worked out anew for all transfers.
Nothing is shared with `envs.cluster` but the requests, the placements and the step law.
"""

from dataclasses import dataclass, field
from math import inf, nan

from envs.cluster import ClusterConfig, Placement
from envs.workload import Workload


@dataclass(eq=False)
class Job:
    number: int
    arrival_s: float
    prompt: int
    output: int
    placement: Placement
    target: int = 0
    done: int = 0
    chunk: int = 0
    context: int = 0
    tokens_s: list[float] = field(default_factory=list)
    plan: list[int] = field(default_factory=list)
    holds: int = 0
    joined: int = 0
    preemptions: int = 0
    prefill_start_s: float = nan
    prefill_end_s: float = nan
    kv_ready_s: float = nan


class Node:
    def __init__(self) -> None:
        self.prompts: list[Job] = []
        self.ready: list[Job] = []
        self.decoding: list[Job] = []
        self.chunks: list[tuple[Job, int]] = []
        self.waiting_kv: list[Job] = []
        self.pulls: list[Job] = []
        self.end_s = inf  # of the step in progress
        self.used = 0


class Reference:
    """Plays a workload with given placements; afterwards `jobs` hold what happened."""

    def __init__(self, workload: Workload, placements: list[Placement], config: ClusterConfig) -> None:
        self.config = config
        self.law = config.profile.law
        prefill, _, decode = config.shape.partition("P")
        count = int(prefill) + int(decode.rstrip("D"))
        self.hosts = config.hosts or tuple(range(count))
        self.nodes = [Node() for _ in range(count)]
        self.jobs = [
            Job(i, float(workload.arrival_s[i]), int(workload.prompt_tokens[i]), int(workload.output_tokens[i]), p)
            for i, p in enumerate(placements)
        ]
        self.transfers: list[list] = []  # [job, bytes left]
        self.now = 0.0
        self.joins = 0
        self.chunk_steps = self.chunk_steps_over_slo = 0

    def run(self) -> "Reference":
        arrivals = list(self.jobs)
        while True:
            rates = [self.rate(t) for t in self.transfers]
            times = [arrivals[0].arrival_s] if arrivals else []
            times += [node.end_s for node in self.nodes]
            times += [self.now + left / rate for (_, left), rate in zip(self.transfers, rates, strict=True)]
            at = min(times)
            if at == inf:
                return self
            for transfer, rate in zip(self.transfers, rates, strict=True):
                transfer[1] -= rate * (at - self.now)
            self.now = at
            for index, node in enumerate(self.nodes):
                if node.end_s == at:
                    self.end_step(index, node)
            for transfer in [t for t in self.transfers if t[1] <= 1e-3]:
                self.transfers.remove(transfer)
                job = transfer[0]
                job.kv_ready_s = at
                self.nodes[job.placement.prefill_node].used -= job.target
                node = self.nodes[job.placement.decode_node]
                if job.target == job.prompt:
                    node.ready.append(job)
                else:  # the first part of a split prompt
                    job.target = job.prompt
                    job.plan = list(job.placement.chunk_plan)
                    node.prompts.insert(sum(prompt.holds > 0 for prompt in node.prompts), job)
            while arrivals and arrivals[0].arrival_s == at:
                job = arrivals.pop(0)
                split = job.placement.split_tokens
                job.target = split or job.prompt
                job.plan = [] if split else list(job.placement.chunk_plan)
                self.nodes[job.placement.prefill_node].prompts.append(job)
            for index, node in enumerate(self.nodes):
                if node.end_s == inf:  # between steps: the scheduler runs
                    node.waiting_kv += node.pulls
                    node.pulls = []
                    self.start_transfers(node)
                    self.start_step(index, node)

    def rate(self, transfer: list) -> float:
        source, target = transfer[0].placement[:2]
        local = self.hosts[source] == self.hosts[target]
        link = self.config.profile.intra_node if local else self.config.profile.inter_node
        same_kind = [
            t[0].placement
            for t in self.transfers
            if (self.hosts[t[0].placement[0]] == self.hosts[t[0].placement[1]]) == local
        ]
        senders = sum(p[0] == source for p in same_kind)
        receivers = sum(p[1] == target for p in same_kind)
        return link.bandwidth_bytes_per_s / max(senders, receivers)

    def start_transfers(self, node: Node) -> None:
        while node.waiting_kv:
            job = node.waiting_kv[0]
            queued = [prompt for prompt in node.prompts if not prompt.holds]
            if queued and queued[0].preemptions:
                return
            # Room for the newcomer and one more token of every sequence that decodes now or is about to.
            if node.used + len(node.decoding) + job.prompt > self.config.profile.kv_capacity_tokens:
                return
            node.used += job.prompt
            job.holds = job.prompt
            node.waiting_kv.pop(0)
            source, target = job.placement[:2]
            local = self.hosts[source] == self.hosts[target]
            link = self.config.profile.intra_node if local else self.config.profile.inter_node
            block = self.config.kv_block_tokens
            size = -(-job.target // block) * block * self.config.profile.kv_bytes_per_token
            self.transfers.append([job, size + link.latency_s * link.bandwidth_bytes_per_s])

    def start_step(self, index: int, node: Node) -> None:
        capacity = self.config.profile.kv_capacity_tokens
        while node.ready and len(node.decoding) < self.config.max_seqs:
            self.decode(node, node.ready.pop(0))
        while node.decoding and node.used + len(node.decoding) > capacity:
            job = max(node.decoding, key=lambda j: j.joined)
            node.decoding.remove(job)
            node.used -= job.context
            job.preemptions += 1
            job.holds = job.done = 0
            job.plan = []
            job.target = job.prompt + len(job.tokens_s)
            node.prompts.insert(sum(prompt.holds > 0 for prompt in node.prompts), job)
        node.chunks = []
        budget = self.config.token_budget - len(node.decoding)
        for job in node.prompts:
            if len(node.chunks) == min(self.config.max_prompts, self.config.max_seqs - len(node.decoding)):
                break
            if budget == 0 or (job.plan and node.chunks):
                break
            if not job.holds:
                if node.used + job.target + len(node.decoding) > capacity:
                    break
                job.holds = job.target
                node.used += job.target
            n = min(budget, job.target - job.done, job.plan[0] if job.plan else budget)
            node.chunks.append((job, n))
            budget -= n
            if job.plan:
                break
        if not node.chunks and not node.decoding:
            return
        step_s = self.law.time_s(
            [(n, job.done) for job, n in node.chunks], len(node.decoding), sum(job.context for job in node.decoding)
        )
        for job, _ in node.chunks:
            if job.prefill_start_s != job.prefill_start_s:
                job.prefill_start_s = self.now
        if node.chunks and node.decoding:
            head = node.chunks[0][0]
            if head.placement.decode_node == index and not head.preemptions:
                self.chunk_steps += 1
        node.end_s = self.now + step_s

    def decode(self, node: Node, job: Job) -> None:
        self.joins += 1
        job.joined = self.joins
        job.context = job.target if job.preemptions else job.prompt
        node.decoding.append(job)

    def end_step(self, index: int, node: Node) -> None:
        node.end_s = inf
        for job in list(node.decoding):
            job.tokens_s.append(self.now)
            job.context += 1
            node.used += 1
            if len(job.tokens_s) == job.output:
                node.decoding.remove(job)
                node.used -= job.context
        for job, n in node.chunks:
            job.done += n
            if len(job.plan) > 1:
                job.plan.pop(0)
            if job.done < job.target:
                continue
            node.prompts.remove(job)
            if job.placement.decode_node != index:
                job.prefill_end_s = self.now
                job.holds = 0
                self.nodes[job.placement.decode_node].pulls.append(job)
                continue
            if job.prefill_end_s != job.prefill_end_s:
                job.prefill_end_s = job.kv_ready_s = self.now
            job.tokens_s.append(self.now)
            if len(job.tokens_s) == job.output:
                node.used -= job.target
            else:
                self.decode(node, job)
                job.context = job.target
