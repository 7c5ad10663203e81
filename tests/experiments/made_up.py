"""Runs made up by hand or drawn at random, for tests of what is computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, GapLog, RequestRecord, RunCounters, RunResult
from envs.workload import Workload
from experiments.analysis.comparison import Groups
from experiments.analysis.metrics import METRIC
from experiments.analysis.outcome import Outcome
from experiments.analysis.request_table import RequestSummary, as_array
from experiments.runs.trial import Trial
from policies import PolicySpec
from tests.toy import toy_profile

CONFIG = ClusterConfig(toy_profile())


def record(
    request: int,
    arrival_s: float,
    parts_s: Sequence[float],
    *,
    decode_s: float = 1.0,
    output_tokens: int = 11,
    tbt_max_s: float = 0.05,
    deflected: bool = False,
) -> RequestRecord:
    """A request whose TTFT has these parts (queue, execution, transfer, decode wait); fewer than four: it got stuck."""
    stamps = [float(time_s) for time_s in arrival_s + np.cumsum(parts_s)] + [nan] * (4 - len(parts_s))
    return RequestRecord(
        request=request,
        arrival_s=arrival_s,
        prompt_tokens=100,
        output_tokens=output_tokens,
        prefill_node=2 if deflected else 0,
        decode_node=2,
        deflected=deflected,
        prefill_start_s=stamps[0],
        prefill_end_s=stamps[1],
        kv_ready_s=stamps[2],
        first_token_s=stamps[3],
        last_token_s=stamps[3] + decode_s,
        tbt_max_s=tbt_max_s,
        preemptions=0,
    )


def run(records: Sequence[RequestRecord], end_s: float = 1000.0, gaps: GapLog | None = None) -> RunResult:
    """A finished run with these records."""
    counters = RunCounters(
        events=7,
        preemptions=1,
        displaced=0,
        kv_expired=4,
        chunk_steps=20,
        chunk_steps_over_slo=3,
        over_slo_decode_alone=2,
        over_slo_minimum=1,
        prefix_hit_tokens=250,
        kv_bytes_moved=10**9,
        busy_s=(end_s / 2, end_s / 4, end_s, end_s),
    )
    return RunResult(list(records), gaps or GapLog(), counters, np.linspace(1e-6, 1e-5, len(records)), end_s)


def workload(records: Sequence[RequestRecord], ttft_slo_s: float = 2.0, tbt_slo_s: float = 0.1) -> Workload:
    """The workload that these records are of."""
    ordered = sorted(records)
    return Workload.of(
        [row.arrival_s for row in ordered],
        [row.prompt_tokens for row in ordered],
        [row.output_tokens for row in ordered],
        label="made up",
        ttft_slo_s=ttft_slo_s,
        tbt_slo_s=tbt_slo_s,
    )


@st.composite
def many_records(draw: st.DrawFn, least: int = 1) -> list[RequestRecord]:
    """Records of requests that arrive one after the other; some get stuck on their way."""
    part = st.floats(0, 5)
    rows = []
    arrival_s = 0.0
    for request in range(draw(st.integers(least, 20))):
        arrival_s += draw(st.floats(0, 2))
        reached = draw(st.sampled_from([4, 4, 4, 4, 0, 1, 2, 3]))
        rows.append(
            record(
                request,
                arrival_s,
                draw(st.lists(part, min_size=reached, max_size=reached)),
                decode_s=draw(st.floats(0, 3)),
                output_tokens=draw(st.integers(1, 20)),
                tbt_max_s=draw(st.floats(0, 0.3)),
                deflected=draw(st.booleans()),
            )
        )
    return rows


@dataclass(frozen=True)
class MadeUpRequests:
    """A recipe: random requests of a mean gap."""

    seed: int
    gap_s: float = 0.2
    count: int = 40

    @property
    def nominal_rps(self) -> float:
        return 1 / self.gap_s

    def make(self) -> Workload:
        rng = np.random.default_rng(self.seed)
        arrival_s = np.cumsum(rng.exponential(self.gap_s, self.count))
        prompt_tokens, output_tokens = rng.integers(1, 900, self.count), rng.integers(1, 60, self.count)
        return Workload.of(arrival_s, prompt_tokens, output_tokens, label=f"made up, seed {self.seed}")


def trial(policy: str = "static", load: float = 1.0, seed: int = 0, **changes: Any) -> Trial:
    """A small trial on the toy cluster."""
    settings = {"requests": MadeUpRequests(seed, 0.2 / load), "config": CONFIG, **changes}
    return Trial(PolicySpec.parse(policy), "toy", load, seed, **settings)


def outcome(policy: str, workload: str = "w", load: float = 1.0, seed: int = 0, **metrics: float) -> Outcome:
    """A run of which only some metrics matter; the others are 1."""
    records = as_array([record(0, float(seed), [0.1, 0.2, 0.3, 0.4])])
    return Outcome(
        policy=PolicySpec.parse(policy),
        workload=workload,
        load=load,
        seed=seed,
        metrics={**dict.fromkeys(METRIC, 1), **metrics},
        summary=RequestSummary.of(records, 100.0),
        label="made up",
        nominal_rps=5.0,
        rate_rps=5.0,
        end_s=100.0,
        requests_digest=f"{workload} {load} {seed}",
        path=Path("nowhere.npz"),
    )


def results(
    p95_s: Mapping[str, float],
    loads: Sequence[float] = (0.5, 0.9),
    workloads: Sequence[str] = ("w",),
    seeds: int = 8,
) -> Groups:
    """Policies with these P95 TTFTs, a little more with each seed and load, and an attainment that falls with it."""
    return Groups.of(
        [
            outcome(
                policy,
                workload,
                load,
                seed,
                ttft_p95_s=value + 0.01 * seed + load,
                slo_attainment=1 - (value + load) / 10,
            )
            for workload in workloads
            for load in loads
            for seed in range(seeds)
            for policy, value in p95_s.items()
        ]
    )
