"""Monitoring of a cluster: samples of its queues, nodes and links at a fixed interval of simulated time.

A `Watch` stops the clock between events, takes a sample, and continues. It schedules nothing, so a watched run has the
same events, records and end as an unwatched one, and a copy of the cluster does not refer to the watch.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from envs.cluster.cluster import Cluster
from envs.cluster.in_progress import busy_s
from hardware_profiles import InputError

Floats = NDArray[np.float64]

COLUMNS = (
    "queued_prompts",
    "queued_prompt_tokens",
    "busy_s",
    "kv_used_tokens",
    "decode_batch",
    "step_s",
    "tbt_slo_s",
    "sending_bytes",
    "receiving_bytes",
)


@dataclass(frozen=True)
class Samples:
    """A watched run: n samples of a cluster's nodes, each taken before the events of its instant.

    Attributes:
        time_s: shape (n,): 0, interval, 2 * interval, ..., and finally the end of the run, seconds.
        prefill_nodes: nodes below this index are the prefill nodes of the cluster's shape.
        kv_capacity_tokens: shape (nodes,).
        queued_prompts: prompts dispatched to a node and not computed (router's count), shape (n, nodes) like all arrays
            below.
        queued_prompt_tokens: their tokens (router's count).
        busy_s: time spent in steps so far, seconds.
        kv_used_tokens: KV held or reserved when the node's scheduler last ran, plus the tokens of its decodes since.
        decode_batch: requests decoding.
        step_s: duration of the current step, seconds; 0 if the node is idle.
        tbt_slo_s: strictest TBT SLO among the decoding requests; inf if there are none.
        sending_bytes: bytes that must still leave through the node's sending ends, see `Network.backlog_bytes`.
        receiving_bytes: bytes that must still arrive through its receiving ends.
    """

    time_s: Floats
    prefill_nodes: int
    kv_capacity_tokens: Floats
    queued_prompts: Floats
    queued_prompt_tokens: Floats
    busy_s: Floats
    kv_used_tokens: Floats
    decode_batch: Floats
    step_s: Floats
    tbt_slo_s: Floats
    sending_bytes: Floats
    receiving_bytes: Floats

    @property
    def busy_share(self) -> Floats:
        """Share of the time since the previous sample that a node was in a step; 0 for the first sample."""
        share = np.zeros_like(self.busy_s)
        share[1:] = np.diff(self.busy_s, axis=0) / np.diff(self.time_s)[:, None]
        return share

    @property
    def kv_share(self) -> Floats:
        """Share of a node's KV capacity in use."""
        return self.kv_used_tokens / self.kv_capacity_tokens

    @property
    def decode_slack(self) -> Floats:
        """(SLO - step) / SLO for the strictest TBT SLO on a node; nan if no request decodes there."""
        slack: Floats = np.where(np.isfinite(self.tbt_slo_s), 1.0 - self.step_s / self.tbt_slo_s, nan)
        return slack


class Watch:
    """Samples one cluster during a run.

    Args:
        interval_s: simulated time between two samples, seconds.

    Raises:
        InputError: the interval is not a finite number above 0.
    """

    def __init__(self, interval_s: float) -> None:
        if not 0.0 < interval_s < inf:
            raise InputError(f"watch interval {interval_s:g} s: must be a finite number above 0")
        self._interval_s = interval_s
        self._rows = array("d")
        self._taken = 0
        self._cluster: Cluster | None = None

    def over(self, cluster: Cluster) -> tuple[Callable[[float], int], Callable[[float], int]]:
        """Watch a new cluster; returns replacements for its clock's `advance_to` and `drain`."""
        assert self._cluster is None, "a watch watches one run"
        self._cluster = cluster
        clock = cluster.clock
        interval_s = self._interval_s

        def advance_to(time_s: float) -> int:
            events = 0
            while (due_s := self._taken * interval_s) <= time_s:
                events += clock.advance_to(due_s)
                self._sample(cluster)
            return events + clock.advance_to(time_s)

        def drain(until_s: float) -> int:
            events = 0
            while (due_s := self._taken * interval_s) <= until_s:
                while clock.peek() < due_s:
                    clock.step()
                    events += 1
                if clock.peek() == inf:  # the run has ended, at its last event
                    break
                clock.advance_to(due_s)
                self._sample(cluster)
            events += clock.drain(until_s)
            if clock.now > (self._taken - 1) * interval_s:
                self._sample(cluster)
            return events

        return advance_to, drain

    def _sample(self, cluster: Cluster) -> None:
        now = cluster.clock.now
        counters = cluster.lifecycle.counters
        sending, receiving = cluster.transfers.network.backlog_bytes()
        row = [now]
        for node, engine in enumerate(cluster.engines):
            report = engine.report(now)
            spent_s, step_s = busy_s(engine, now)
            row += (
                counters.queued_prompts[node],
                counters.queued_prompt_tokens[node],
                spent_s,
                report.kv_used_tokens,
                report.decode_batch,
                step_s,
                report.tbt_slo_s,
                sending[node],
                receiving[node],
            )
        self._rows.extend(row)
        self._taken += 1

    @property
    def samples(self) -> Samples:
        """The samples so far."""
        cluster = self._cluster
        assert cluster is not None, "nothing has been watched"
        topology = cluster.topology
        rows = np.frombuffer(self._rows).reshape(-1, 1 + topology.nodes * len(COLUMNS)).copy()
        by_node = rows[:, 1:].reshape(len(rows), topology.nodes, len(COLUMNS))
        return Samples(
            rows[:, 0],
            topology.decodes.index(True),
            np.array(topology.kv_capacity_tokens, dtype=np.float64),
            *np.moveaxis(by_node, 2, 0),
        )
