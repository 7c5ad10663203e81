"""Signals that an operator could raise an alarm on, over the samples of a watched run.

| alarm | signal |
|---|---|
| queue wait | prompt tokens queued at the prefill nodes / tokens per second those nodes compute, seconds |
| queue wait + trend | the same, plus its growth within AHEAD_S at the slope of its last TREND_S, seconds |
| TTFT P95 | the P95 of TTFT / SLO that must not break, with a separate threshold |
| end-to-end P95 | P95 of the latency of the requests that finished in the last WINDOW_S, seconds |

The first two need the router's own counters and the step law and nothing from the nodes; the others need answers. Each
is known at its sample. Prefill nodes are those of the cluster's shape, whatever a policy does with them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from envs.cluster import Samples, Topology
from experiments.analysis.bootstrap import Floats
from experiments.analysis.early_warning import Break, JudgedAlarm, Watched, breaks, calibrate, judge, running_p95
from experiments.analysis.request_table import Records

AHEAD_S = 5.0
TREND_S = 10.0
QUEUE_WAIT, QUEUE_TREND, TTFT, END_TO_END = ALARMS = ("queue wait", "queue wait + trend", "TTFT P95", "end-to-end P95")
UNITS = {QUEUE_WAIT: "s", QUEUE_TREND: "s", TTFT: "SLO", END_TO_END: "s"}


class Signals(NamedTuple):
    """One run until its last arrival: samples (n,), the running P95 of TTFT / SLO, and a signal for each of ALARMS."""

    time_s: Floats
    ttft_p95: Floats
    by_alarm: Mapping[str, Floats]

    @property
    def breaks(self) -> list[Break]:
        """The breaks of TTFT."""
        return breaks(self.time_s, self.ttft_p95)

    def of(self, alarm: str) -> Watched:
        """The run as one alarm sees it."""
        return Watched(self.time_s, self.by_alarm[alarm], self.breaks)


def prefill_rate(topology: Topology, nodes: int) -> float:
    """Prompt tokens per second that the first `nodes` nodes compute in full steps of prompts without context."""
    budget = topology.token_budget
    return sum(budget / topology.laws[node].chunk_step_s(budget, 0) for node in range(nodes))


def queue_wait_s(samples: Samples, topology: Topology) -> Floats:
    """The time that the prefill nodes together need for the prompts queued at them, shape (n,), seconds."""
    nodes = samples.prefill_nodes
    return np.asarray(samples.queued_prompt_tokens[:, :nodes].sum(axis=1) / prefill_rate(topology, nodes))


def trend(values: Floats, interval_s: float) -> Floats:
    """Least-squares slope of the last TREND_S of values sampled at an interval, per second; 0 before the first."""
    count = max(2, round(TREND_S / interval_s) + 1)
    offset_s = interval_s * (np.arange(count) - (count - 1) / 2)
    before = np.concatenate([np.zeros(count - 1), values])
    return np.asarray(np.convolve(before, offset_s[::-1] / (offset_s @ offset_s), "valid"))


def signals(samples: Samples, interval_s: float, records: Records, ttft_slo_s: Floats, topology: Topology) -> Signals:
    """The signals of one run, from samples `interval_s` apart, and all requests in order with the TTFT SLO of each."""
    shown = samples.time_s <= records["arrival_s"].max()
    time_s = samples.time_s[shown]
    ttft_share = (records["first_token_s"] - records["arrival_s"]) / ttft_slo_s
    ttft_p95 = running_p95(records["first_token_s"], ttft_share, time_s)
    wait_s = queue_wait_s(samples, topology)[shown]
    latency_s = records["last_token_s"] - records["arrival_s"]
    by_alarm = {
        QUEUE_WAIT: wait_s,
        QUEUE_TREND: wait_s + AHEAD_S * trend(wait_s, interval_s),
        TTFT: ttft_p95,
        END_TO_END: running_p95(records["last_token_s"], latency_s, time_s),
    }
    return Signals(time_s, ttft_p95, by_alarm)


def judge_alarms(before: Sequence[Signals], after: Sequence[Signals], false_per_h: float) -> dict[str, JudgedAlarm]:
    """Calibrate every alarm on some runs and judge it on others."""
    thresholds = {alarm: calibrate([run.of(alarm) for run in before], false_per_h) for alarm in ALARMS}
    verdicts = {alarm: [judge(run.of(alarm), thresholds[alarm]) for run in after] for alarm in ALARMS}
    return {alarm: JudgedAlarm(thresholds[alarm], verdicts[alarm], verdicts[END_TO_END]) for alarm in ALARMS}
