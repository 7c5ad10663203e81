"""Simulate a workload under a policy."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.cluster.cluster import Cluster
from envs.cluster.config import ClusterConfig
from envs.cluster.gaps import GapLog
from envs.cluster.placement import Placement, checked_placement
from envs.cluster.play import play
from envs.cluster.request import Request, RequestRecord, RequestView
from envs.cluster.router_view import RouterView
from envs.cluster.sampler import Watch
from envs.garbage_collection import rare_garbage_collection
from envs.workload import Row, Workload


class Policy(Protocol):
    """A rule that places requests; the package `policies` has many."""

    name: str

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place a request that has arrived now; None rejects it, and it never enters the cluster."""


@runtime_checkable
class ClairvoyantPolicy(Policy, Protocol):
    """A policy that uses knowledge which no router has: a bound on the others, always marked as clairvoyant.

    Attributes:
        clairvoyant: True.
    """

    clairvoyant: bool

    def attend(self, cluster: Cluster, requests: list[Row]) -> None:
        """Receive the cluster and all requests of the run; called before the first request arrives."""


@dataclass(frozen=True)
class RunCounters:
    """Totals of a run.

    Attributes:
        events: events processed by the clock.
        preemptions: requests removed from a decode batch and recomputed.
        displaced: requests placed again because their node was lost.
        kv_expired: requests whose computed KV got no room on the decode node in time, and which that node recomputed.
        chunk_steps: steps with prompt tokens and at least one decoding request.
        chunk_steps_over_slo: chunk steps that lasted longer than the strictest TBT SLO in the batch.
        over_slo_decode_alone: steps among these that would have lasted too long without their prompt tokens.
        over_slo_minimum: others among them whose prompt tokens were the minimum (`ClusterConfig.chunk_grain_tokens`).
        kv_bytes_moved: bytes of KV transferred between nodes.
        busy_s: time each node spent in steps, seconds.
        prefix_hit_tokens: tokens taken from a prefix cache instead of computed.
        tbt_excess: time by which gaps between tokens exceeded their TBT SLO, in units of the SLO, summed.
        misses: requests that had missed an SLO by the run's end, see `Cluster.misses`.
    """

    events: int
    preemptions: int
    displaced: int
    kv_expired: int
    chunk_steps: int
    chunk_steps_over_slo: int
    over_slo_decode_alone: int
    over_slo_minimum: int
    kv_bytes_moved: int
    busy_s: tuple[float, ...]
    prefix_hit_tokens: int = 0
    tbt_excess: float = 0.0
    misses: int = 0


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        records: one per request that arrived, in the workload's order. Stamps of events that did not happen are nan;
            the nodes are -1 if the request was rejected, by the policy or for its length. The list is empty if
            `on_record` got the records.
        gaps: the gaps between tokens.
        counters: totals.
        decision_s: wall time of each decision, seconds, shape (requests,); empty unless `time_decisions` is set.
        end_s: simulated time at which the run ended.
    """

    records: list[RequestRecord]
    gaps: GapLog
    counters: RunCounters
    decision_s: NDArray[np.float64]
    end_s: float


@rare_garbage_collection()
def simulate(
    workload: Workload,
    policy: Policy,
    config: ClusterConfig,
    *,
    drain_s: float = inf,
    time_decisions: bool = False,
    on_record: Callable[[RequestRecord], object] | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Simulate a workload on a cluster under a policy.

    Args:
        workload: the requests; they do not depend on the policy.
        policy: places each request at its arrival.
        config: the cluster.
        drain_s: seconds after the last arrival at which the run ends, unless all requests have finished.
        time_decisions: measure each decision's wall time.
        on_record: called with each record when its request finishes or is rejected, and at the end with the records of
            unfinished requests; the result then has no records. Use it for runs of millions of requests.
        watch: samples the cluster during the run, without changing it.

    Raises:
        InputError: the policy returned something other than a `Placement` or None, or a placement that the cluster
            does not allow.
    """
    records: list[RequestRecord] = []

    def place_again(request: Request) -> Placement:
        view = cluster.view()
        asked = RequestView(
            request.index,
            request.arrival_s,
            request.target_tokens,
            request.ttft_slo_s,
            request.tbt_slo_s,
            request.block_hashes,
        )
        placement = policy.place(asked, view)
        if placement is None:  # an accepted request cannot be rejected any more
            return view.default_placement()
        return checked_placement(placement, name, request.index, nodes)

    name = getattr(policy, "name", type(policy).__name__)
    keep = on_record if on_record is not None else records.append
    cluster = Cluster(config, keep, place_again)
    clock = cluster.clock
    nodes = cluster.topology.nodes
    advance_to, drain = watch.over(cluster) if watch is not None else (clock.advance_to, clock.drain)
    requests = workload.rows()
    if isinstance(policy, ClairvoyantPolicy):
        policy.attend(cluster, requests)
    decision_s: list[float] = []
    events = play(cluster, requests, policy.place, name, advance_to, decision_s if time_decisions else None)
    events += drain(clock.now + drain_s)
    cluster.settle()
    for unfinished in cluster.lifecycle.in_flight.values():
        keep(unfinished.record())
    records.sort()
    engines = cluster.engines
    return RunResult(
        records,
        cluster.gaps,
        RunCounters(
            events=events + len(requests),
            preemptions=sum([engine.scheduler.preemptions for engine in engines]),
            displaced=cluster.lifecycle.displaced,
            kv_expired=cluster.lifecycle.kv_expired,
            chunk_steps=sum([engine.slo_count.chunk_steps for engine in engines]),
            chunk_steps_over_slo=sum([engine.slo_count.over for engine in engines]),
            over_slo_decode_alone=sum([engine.slo_count.decode_alone for engine in engines]),
            over_slo_minimum=sum([engine.slo_count.minimum for engine in engines]),
            kv_bytes_moved=cluster.transfers.bytes_moved,
            busy_s=tuple([engine.busy_s for engine in engines]),
            prefix_hit_tokens=sum([engine.scheduler.prefix_hit_tokens for engine in engines]),
            tbt_excess=cluster.tbt_cost(),
            misses=cluster.misses(),
        ),
        np.array(decision_s),
        clock.now,
    )
