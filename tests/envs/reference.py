"""A reference simulator of the cluster with one event per step, as simple as possible, to test the coalescing engine.

Every decode step is an event, every context is a sum over requests, and every link share is recomputed for all
transfers. It shares only the workload, the placements, the step law, and the laws and capacities of `ClusterConfig` and
`Topology` with `envs.cluster`.
"""

from collections import Counter
from collections.abc import Callable
from math import inf, isnan, nan

from envs.cluster import ClusterConfig, Placement, Topology
from envs.workload import HASH_BLOCK_TOKENS, Workload
from tests.envs.reference_engine import Job, Node
from tests.envs.reference_network import Links


class Reference:
    """Simulates a workload with given placements; `jobs` and `counts` have the results.

    Args:
        workload: the requests.
        placements: placement of each request at its arrival.
        config: the cluster.
        place_again: places displaced requests and requests that arrive for a lost node; its arguments are the request's
            number and the nodes lost so far.
    """

    def __init__(
        self,
        workload: Workload,
        placements: list[Placement],
        config: ClusterConfig,
        place_again: Callable[[int, set[int]], Placement] | None = None,
    ) -> None:
        self.config = config
        self.placements = placements
        self.place_again = place_again
        topology = Topology(config)
        self.laws = topology.laws
        self.links = Links(config, topology)
        self.first_decode_node = topology.decodes.index(True)
        self.nodes = [
            Node(self, config, index, law, capacity, cache // HASH_BLOCK_TOKENS if config.prefix_cache else 0)
            for index, (law, capacity, cache) in enumerate(
                zip(topology.laws, topology.kv_capacity_tokens, topology.prefix_cache_tokens, strict=True)
            )
        ]
        self.jobs = [
            Job(number, arrival_s, prompt, output, tbt_slo_s, hashes)
            for number, (arrival_s, prompt, output, _, tbt_slo_s, hashes) in enumerate(workload.rows())
        ]
        self.to_come = list(self.jobs)
        self.disturbances = sorted(config.disturbances, key=lambda disturbance: disturbance.at_s)
        self.lost: set[int] = set()
        self.now = 0.0
        self.counts: Counter[str] = Counter()

    def run(self) -> "Reference":
        while (at_s := self.next_s()) < inf:
            self.play(at_s)
        return self

    def next_s(self) -> float:
        times = [node.end_s for node in self.nodes]
        times += [job.hold_end_s for job in self.jobs]
        times += [job.arrival_s for job in self.to_come[:1]]
        times += [disturbance.at_s for disturbance in self.disturbances[:1]]
        return min(*times, self.links.next_end_s(self.now))

    def play(self, at_s: float) -> None:
        """Process all events of the next instant in order, and then start steps."""
        arrived = self.links.advance(self.now, at_s)
        self.now = at_s
        while self.disturbances and self.disturbances[0].at_s == at_s:
            self.disturb(self.disturbances.pop(0))
        for node in self.nodes:
            if node.end_s == at_s:
                node.end_step()
        for job in arrived:
            if job.reserved:  # otherwise its node was lost at this instant
                self.part_arrived(job)
        while self.to_come and self.to_come[0].arrival_s == at_s:
            job = self.to_come.pop(0)
            placement = self.placements[job.number]
            if self.lost & set(placement[:2]):
                placement = self.place_again(job.number, set(self.lost))
            self.place(job, placement)
        for node in self.nodes:
            for job in [job for job, asks in node.waiting if asks and job.hold_end_s == at_s]:
                self.expire(job)
        for node in self.nodes:
            if node.end_s == inf and not node.lost:
                node.schedule()
            assert 0 <= node.used <= node.capacity or node.lost

    def place(self, job: Job, placement: Placement) -> None:
        job.prefill_node, job.decode_node, plan, split = placement
        job.at = job.prefill_node
        tokens = job.prompt + len(job.tokens_s)
        job.target = split or tokens
        job.rest = tokens - job.target
        job.plan, job.rest_plan = ((), plan) if split else (plan, ())
        job.computed = 0
        self.nodes[job.at].waiting.append((job, False))

    # ---- KV on its way ----------------------------------------------------------------------------------------------

    def tell_decode_node(self, job: Job) -> None:
        """Handle newly computed KV of a prompt."""
        if not job.asked:
            job.asked = True
            self.nodes[job.decode_node].waiting.append((job, True))
        elif job.reserved:
            self.send(job)

    def reserve(self, node: Node, job: Job, tokens: int) -> None:
        node.used += tokens
        job.reserved = tokens
        job.hold_end_s = inf
        block = self.config.kv_block_tokens
        job.sent = node.hit(job) // block * block
        self.send(job)

    def send(self, job: Job) -> None:
        """Send KV that is computed and not sent yet, unless a part is on its way."""
        block = self.config.kv_block_tokens
        computed = job.computed if job.computed == job.target else job.computed // block * block
        if computed > job.sent and not self.links.sends(job):
            size = (-(-computed // block) - job.sent // block) * block * self.config.profile.kv_bytes_per_token
            job.sent = computed
            self.counts["kv_bytes_moved"] += size
            self.links.start(job, job.prefill_node, job.decode_node, size)

    def part_arrived(self, job: Job) -> None:
        if job.sent < job.target:
            self.send(job)
            return
        if isnan(job.kv_ready_s):
            job.kv_ready_s = self.now
        self.nodes[job.prefill_node].used -= job.target
        node = self.nodes[job.decode_node]
        node.use_blocks(job.computed_blocks())
        job.at = job.decode_node
        job.asked = False
        job.reserved = 0
        if job.rest:
            job.target += job.rest
            job.rest = 0
            job.plan = job.rest_plan
            node.prefilling.append(job)
        else:
            node.ready.append(job)

    def forget(self, job: Job) -> None:
        """Remove all KV of a job from its decode node."""
        node = self.nodes[job.decode_node]
        if (job, True) in node.waiting:
            node.waiting.remove((job, True))
        self.links.stop(job)
        node.used -= job.reserved
        job.asked = False
        job.reserved = 0
        job.hold_end_s = inf

    def expire(self, job: Job) -> None:
        self.counts["kv_expired"] += 1
        self.nodes[job.prefill_node].used -= job.target
        self.forget(job)
        self.compute_anew(job)
        job.at = job.decode_node
        self.nodes[job.at].waiting.append((job, False))

    def compute_anew(self, job: Job) -> None:
        job.target = job.prompt + len(job.tokens_s)
        job.computed = job.rest = 0
        job.plan = ()

    # ---- what goes wrong --------------------------------------------------------------------------------------------

    def disturb(self, disturbance: object) -> None:
        node = self.nodes[disturbance.node]
        if disturbance.kind == "speed":
            node.law = self.laws[node.index].scaled(1.0 / disturbance.factor)
        elif disturbance.kind == "link":
            self.links.degrade(node.index, disturbance.factor)
        else:
            self.lose(node)

    def lose(self, node: Node) -> None:
        if node.end_s == self.now:
            node.end_step()
        self.lost.add(node.index)
        node.lost = True
        node.end_s = inf
        displaced = [job for job in self.jobs if job.at == node.index]
        for job in [job for job in self.jobs if job.at != -1 and node.index in (job.at, job.decode_node)]:
            asked = job.asked
            self.forget(job)
            if job not in displaced:
                self.move(job, asked)
        node.waiting, node.prefilling, node.ready, node.batch = [], [], [], []
        for job in sorted(displaced, key=lambda job: job.number):
            self.counts["displaced"] += 1
            job.preempted = False
            if not job.tokens_s:
                job.prefill_start_s = job.prefill_end_s = job.kv_ready_s = nan
            self.place(job, self.place_again(job.number, set(self.lost)))

    def move(self, job: Job, asked: bool) -> None:
        """Choose another decode node for a request: a decode node if one is left, otherwise any node."""
        live = [node for node in self.nodes if not node.lost and node.index != job.prefill_node]
        live = [node for node in live if node.capacity > job.prompt + job.output]
        others = [node.index for node in live if node.index >= self.first_decode_node] or [node.index for node in live]
        load = Counter(other.decode_node for other in self.jobs if other.at != -1)
        job.decode_node = min(others, key=lambda index: load[index])
        if job.computed == job.target:
            job.hold_end_s = self.now + self.config.kv_hold_s
        if asked:
            self.tell_decode_node(job)
