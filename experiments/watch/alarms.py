"""Signals that an operator could raise an alarm on, over the samples of a watched run.

| alarm              | signal                                                                                     |
|--------------------|--------------------------------------------------------------------------------------------|
| queue wait         | prompt tokens queued at the prefill nodes / tokens a second those nodes compute, seconds    |
| queue wait + trend | the same, and what it grows by in AHEAD_S at the slope of its last TREND_S, seconds         |
| TTFT P95           | the P95 of TTFT / SLO that is not to break, but with a threshold of its own                 |
| end-to-end P95     | P95 of the latency of the requests that finished in the last WINDOW_S, seconds              |

The first two need the router's own counters and the step law and nothing from the nodes; the others need answers. Each
is known at its sample. Prefill nodes are those of the cluster's shape, whatever a policy makes of them.
"""

from typing import NamedTuple

import numpy as np

from envs.cluster import Samples, Topology
from experiments.metrics import Records
from experiments.watch.early_warning import Floats, running_p95

AHEAD_S = 5.0
TREND_S = 10.0
QUEUE_WAIT, QUEUE_TREND, TTFT, END_TO_END = ALARMS = ("queue wait", "queue wait + trend", "TTFT P95", "end-to-end P95")
UNITS = {QUEUE_WAIT: "s", QUEUE_TREND: "s", TTFT: "SLO", END_TO_END: "s"}


class Signals(NamedTuple):
    """One run, sampled until its last arrival.

    Attributes:
        time_s: samples, shape (n,), seconds.
        ttft_p95: running P95 of TTFT / SLO over first tokens.
        by_alarm: a signal for each of ALARMS, shape (n,).
    """

    time_s: Floats
    ttft_p95: Floats
    by_alarm: dict[str, Floats]


def prefill_rate(topology: Topology, node: int) -> float:
    """Prompt tokens a second that a node computes in full steps of prompts without context."""
    budget = topology.token_budget
    return budget / topology.laws[node].chunk_step_s(budget, 0)


def queue_wait_s(samples: Samples, topology: Topology) -> Floats:
    """How long the prefill nodes together need for what is queued at them, shape (n,), seconds."""
    nodes = samples.prefill_nodes
    rate = sum(prefill_rate(topology, node) for node in range(nodes))
    wait_s: Floats = samples.queued_prompt_tokens[:, :nodes].sum(axis=1) / rate
    return wait_s


def trend(values: Floats, interval_s: float) -> Floats:
    """Least-squares slope of the last TREND_S of values sampled at an interval, per second; 0 before the first."""
    count = max(2, round(TREND_S / interval_s) + 1)
    offset_s = interval_s * (np.arange(count) - (count - 1) / 2)
    before = np.concatenate([np.zeros(count - 1), values])
    slope: Floats = np.convolve(before, offset_s[::-1] / (offset_s @ offset_s), "valid")
    return slope


def signals(samples: Samples, interval_s: float, records: Records, ttft_slo_s: Floats, topology: Topology) -> Signals:
    """The signals of one run.

    Args:
        samples: of the run.
        interval_s: between them, seconds.
        records: of all requests, in order.
        ttft_slo_s: of each of them, seconds.
        topology: of the cluster.
    """
    shown = samples.time_s <= records["arrival_s"].max()
    time_s = samples.time_s[shown]
    ttft_share = (records["first_token_s"] - records["arrival_s"]) / ttft_slo_s
    ttft_p95 = running_p95(records["first_token_s"], ttft_share, time_s)
    wait_s = queue_wait_s(samples, topology)[shown]
    slope = trend(wait_s, interval_s)
    latency_s = records["last_token_s"] - records["arrival_s"]
    by_alarm = {
        QUEUE_WAIT: wait_s,
        QUEUE_TREND: wait_s + AHEAD_S * slope,
        TTFT: ttft_p95,
        END_TO_END: running_p95(records["last_token_s"], latency_s, time_s),
    }
    return Signals(time_s, ttft_p95, by_alarm)
