"""Metrics of the router service, in the format of Prometheus."""

from collections import deque

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from envs.cluster import RequestRecord, Topology
from experiments.analysis.alarms import AHEAD_S, TREND_S, prefill_rate, trend
from experiments.analysis.request_table import PARTS
from experiments.serving.live_view import LiveView

SAMPLE_S = 1.0
"""Seconds between samples of the alarm."""
_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_DECISION_SECONDS = (25e-6, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.02, 0.1)


class ServiceMetrics:
    """Counts the work of a router; see `live_router.Observer`.

    Attributes:
        registry: holds the metrics.

    Args:
        topology: the cluster.
        alarm_s: the alarm is on while the queue wait, with its trend, is above this, seconds (`analysis.alarms`).
    """

    def __init__(self, topology: Topology, alarm_s: float) -> None:
        self.registry = registry = CollectorRegistry()
        self._alarm_s = alarm_s
        self._prefill_nodes = topology.decodes.index(True)
        self._rate = prefill_rate(topology, self._prefill_nodes)
        self._waits_s = deque([0.0] * (round(TREND_S / SAMPLE_S) + 1), maxlen=round(TREND_S / SAMPLE_S) + 1)
        self._alarm = Gauge("placement_alarm", "1 while the queue wait with its trend is too long.", registry=registry)
        self._wait = Gauge(
            "placement_queue_wait_seconds",
            "Time that the prefill nodes together need for the prompts queued at them.",
            registry=registry,
        )
        self._requests = Counter(
            "placement_requests",
            "Requests that finished or were rejected, by what was done with them.",
            ["placement"],
            registry=registry,
        )
        self._ttft = Histogram("placement_ttft_seconds", "Time to first token.", buckets=_SECONDS, registry=registry)
        self._parts = Histogram(
            "placement_ttft_part_seconds", "Parts of the TTFT.", ["part"], buckets=_SECONDS, registry=registry
        )
        self._gaps = Histogram("placement_tbt_seconds", "Time between tokens.", buckets=_SECONDS, registry=registry)
        self._decisions = Histogram(
            "placement_decision_seconds",
            "Time of a placement decision; its count per second is the decisions per second.",
            buckets=_DECISION_SECONDS,
            registry=registry,
        )
        self._bytes = Counter("placement_kv_moved_bytes", "Bytes of KV sent between nodes.", registry=registry)

    def watch(self, view: LiveView) -> None:
        """Show what a router counts; called once."""
        topology, counters = view.topology, view.counters
        self._queued = counters.queued_prompt_tokens
        for name, help_, values in (
            ("queued_prompts", "Prompts sent to a node or held for it and not computed.", counters.queued_prompts),
            ("queued_prompt_tokens", "Their tokens: the prefill queue depth.", counters.queued_prompt_tokens),
            ("decode_requests", "Unfinished requests that decode on a node.", counters.decode_requests),
            ("kv_leaving_tokens", "Tokens of KV that move from a node.", counters.kv_leaving_tokens),
        ):
            gauge = Gauge(f"placement_{name}", help_, ["node", "role"], registry=self.registry)
            for node in range(topology.nodes):
                gauge.labels(node, _role(topology, node)).set_function(lambda of=values, at=node: of[at])

    def decided(self, seconds: float) -> None:
        """Count a decision."""
        self._decisions.observe(seconds)

    def gap(self, _start_s: float, gap_s: float) -> None:
        """Count a gap between tokens."""
        self._gaps.observe(gap_s)

    def moved(self, kv_bytes: int) -> None:
        """Count bytes of KV."""
        self._bytes.inc(kv_bytes)

    def recorded(self, record: RequestRecord) -> None:
        """Count a request."""
        self._requests.labels(_done_with(record, self._prefill_nodes)).inc()
        if record.decode_node >= 0:
            self._ttft.observe(record.first_token_s - record.arrival_s)
            stamps = record.arrival_s, record.prefill_start_s, record.prefill_end_s, record.kv_ready_s
            for part, seconds in zip(PARTS, np.diff([*stamps, record.first_token_s]).tolist(), strict=True):
                self._parts.labels(part).observe(seconds)

    def sample(self) -> None:
        """Take the sample of the alarm that is due every SAMPLE_S."""
        self._waits_s.append(sum(self._queued[: self._prefill_nodes]) / self._rate)
        self._wait.set(self._waits_s[-1])
        slope = float(trend(np.array(self._waits_s), SAMPLE_S)[-1])
        self._alarm.set(self._waits_s[-1] + AHEAD_S * slope > self._alarm_s)


def _role(topology: Topology, node: int) -> str:
    return "decode" if topology.decodes[node] else "prefill"


def _done_with(record: RequestRecord, prefill_nodes: int) -> str:
    """The kind of a request's placement."""
    if record.decode_node < 0:
        return "rejected"
    if not record.deflected:
        return "disaggregated"
    return "aggregated" if record.decode_node < prefill_nodes else "deflected"
