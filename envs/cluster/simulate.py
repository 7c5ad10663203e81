"""Play a workload under a policy and return what happened."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.cluster.cluster import Cluster
from envs.cluster.gaps import GapLog
from envs.cluster.placement import Placement
from envs.cluster.request import RequestRecord, RequestView, Sequence
from envs.cluster.topology import ClusterConfig
from envs.cluster.view import ClusterView
from envs.workload import Workload


class Policy(Protocol):
    """A rule that places requests; see `policies` for those that come with the project."""

    name: str

    def place(self, request: RequestView, view: ClusterView) -> Placement:
        """Place one request that has arrived now."""


@dataclass(frozen=True)
class RunCounters:
    """Totals of a run.

    Attributes:
        events: events processed by the clock.
        preemptions: sequences thrown out of a decode batch and recomputed.
        displaced: requests placed again because their node was lost.
        chunk_steps: steps that carried a deflected chunk beside at least one decoding sequence.
        chunk_steps_over_slo: those of them that lasted longer than the strictest TBT SLO in the batch.
        kv_bytes_moved: bytes of KV transferred between nodes.
        busy_s: time each node spent in steps, seconds.
        prefix_hit_tokens: tokens that came out of a prefix cache and were not computed.
    """

    events: int
    preemptions: int
    displaced: int
    chunk_steps: int
    chunk_steps_over_slo: int
    kv_bytes_moved: int
    busy_s: tuple[float, ...]
    prefix_hit_tokens: int = 0


@dataclass(frozen=True)
class RunResult:
    """What happened in a run.

    Attributes:
        records: one per request that arrived, in the workload's order; nan stamps where it did not finish. Empty where
            they went to `on_record`.
        gaps: the gaps between tokens.
        counters: totals.
        decision_s: seconds of wall time each decision took, shape (requests,); empty unless asked for.
        end_s: simulated time at which the run ended.
    """

    records: list[RequestRecord]
    gaps: GapLog
    counters: RunCounters
    decision_s: NDArray[np.float64]
    end_s: float


def simulate(
    workload: Workload,
    policy: Policy,
    config: ClusterConfig,
    *,
    drain_s: float = inf,
    time_decisions: bool = False,
    on_record: Callable[[RequestRecord], object] | None = None,
) -> RunResult:
    """Play a workload through a cluster under a policy.

    Args:
        workload: the requests; the same whatever the policy does.
        policy: places each request at its arrival.
        config: the cluster.
        drain_s: how long after the last arrival the cluster may work on, seconds.
        time_decisions: measure each decision's wall time.
        on_record: called with each record when its request finishes, and at the end with those that did not; the
            result then keeps none. For runs of millions of requests.

    Raises:
        InputError: a request that can never fit, or a placement that does not exist.
    """
    records: list[RequestRecord] = []

    def place_again(seq: Sequence) -> Placement:
        request = RequestView(
            seq.index, seq.arrival_s, seq.target_tokens, seq.ttft_slo_s, seq.tbt_slo_s, seq.block_hashes
        )
        return policy.place(request, cluster.view())

    keep = on_record if on_record is not None else records.append
    cluster = Cluster(config, keep, place_again)
    clock = cluster.clock
    view = cluster.view()
    place = policy.place
    submit = cluster.submit
    decision_s: list[float] = []
    events = 0
    index = 0
    for arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes in workload.rows():
        events += clock.advance_to(arrival_s)
        request = RequestView(index, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes)
        if time_decisions:
            began = perf_counter()
            placement = place(request, view)
            decision_s.append(perf_counter() - began)
        else:
            placement = place(request, view)
        submit(Sequence(index, arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, hashes), placement)
        index += 1
    events += clock.drain(clock.now + drain_s)
    for engine in cluster.engines:
        engine.settle()
    for seq in cluster.in_flight.values():
        keep(seq.record())
    records.sort()
    engines = cluster.engines
    return RunResult(
        records,
        cluster.gaps,
        RunCounters(
            events=events + index,
            preemptions=sum([engine.preemptions for engine in engines]),
            displaced=cluster.displaced,
            chunk_steps=sum([engine.chunk_steps for engine in engines]),
            chunk_steps_over_slo=sum([engine.chunk_steps_over_slo for engine in engines]),
            kv_bytes_moved=cluster.kv_bytes_moved,
            busy_s=tuple([engine.busy_s for engine in engines]),
            prefix_hit_tokens=cluster.prefix_hit_tokens,
        ),
        np.array(decision_s),
        clock.now,
    )
