"""From the records of one run to one row of numbers.

Window: requests that ARRIVED after the warm-up (the first `WARMUP_SHARE` of the span of arrivals), up to the
last arrival. Every one of them counts. One that never finished misses its SLOs; one without a first token
enters the TTFT statistics with the time it had waited when the run ended (a lower bound) and is counted in
`censored`. So does one that was rejected, which is counted in `rejected` too: turning requests away never makes
a TTFT look better. It has no gaps, and is left out of their statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, RequestRecord, RunResult, parse_shape
from envs.workload import Workload
from experiments.tbt import Gaps

WARMUP_SHARE = 0.1
PARTS = ("queue", "exec", "transfer", "decode_wait")

RECORD = np.dtype(
    [
        ("request", np.int64),
        ("arrival_s", np.float64),
        ("prompt_tokens", np.int64),
        ("output_tokens", np.int64),
        ("prefill_node", np.int64),
        ("decode_node", np.int64),
        ("deflected", np.bool_),
        ("prefill_start_s", np.float64),
        ("prefill_end_s", np.float64),
        ("kv_ready_s", np.float64),
        ("first_token_s", np.float64),
        ("last_token_s", np.float64),
        ("tbt_max_s", np.float64),
        ("preemptions", np.int64),
    ]
)
"""One RequestRecord as a row of an array; the fields are the record's own, in its order."""

Records = NDArray[np.void]
Floats = NDArray[np.float64]


def as_array(records: Sequence[RequestRecord]) -> Records:
    """Records as a structured array (dtype RECORD) in request order."""
    table = np.array(records, dtype=RECORD)
    ordered: Records = table[np.argsort(table["request"])]
    return ordered


def measured(records: Records) -> NDArray[np.bool_]:
    """Which requests arrived in the measured window, shape (requests,)."""
    arrival_s = records["arrival_s"]
    window: NDArray[np.bool_] = arrival_s >= window_start_s(records)
    return window


def rejected(records: Records) -> NDArray[np.bool_]:
    """Which requests were never taken in, shape (requests,)."""
    away: NDArray[np.bool_] = records["decode_node"] < 0
    return away


def window_start_s(records: Records) -> float:
    """When the measured window begins: after WARMUP_SHARE of the span of arrivals, seconds."""
    first_s, last_s = records["arrival_s"].min(), records["arrival_s"].max()
    return float(first_s + WARMUP_SHARE * (last_s - first_s))


def ttft_s(records: Records, end_s: float) -> Floats:
    """Time to first token of each request, seconds; the time waited until `end_s` where none came."""
    first_s = records["first_token_s"]
    waited: Floats = np.where(np.isnan(first_s), end_s, first_s) - records["arrival_s"]
    return waited


def ttft_parts_s(records: Records, end_s: float) -> Floats:
    """Queue, execution, transfer and decode wait of each request, shape (requests, 4); rows sum to `ttft_s`.

    The part that a request was in when the run ended gets its time until then.
    """
    stamps = ("arrival_s", "prefill_start_s", "prefill_end_s", "kv_ready_s", "first_token_s")
    times_s = np.stack([np.where(np.isnan(records[name]), end_s, records[name]) for name in stamps], axis=1)
    return np.diff(times_s, axis=1)


def around_quantile(records: Records, end_s: float, q: float = 0.95, least: int = 20) -> Records:
    """The requests around the q-quantile of TTFT, shortest first.

    "Around" is the ranks within one per cent of all requests on either side (P94 to P96), and `least`
    requests where that is fewer (all of them where there are no more).
    """
    total = len(records)
    half = max(int(np.ceil(0.01 * total)), least // 2)
    centre = int(np.clip(round(q * (total - 1)), 0, total - 1))
    order = np.lexsort((records["request"], ttft_s(records, end_s)))
    around: Records = records[order[max(centre - half, 0) : centre + half + 1]]
    return around


def parts_at_quantile_s(records: Records, end_s: float, q: float = 0.95) -> Floats:
    """Mean parts (see PARTS) of the requests around the q-quantile of TTFT, seconds, shape (4,)."""
    mean_s: Floats = ttft_parts_s(around_quantile(records, end_s, q), end_s).mean(axis=0)
    return mean_s


@dataclass(frozen=True)
class Attainment:
    """Which requests met their SLOs, shape (requests,) each; unfinished ones never meet the TBT SLO.

    Attributes:
        ttft: the first token came within the request's TTFT SLO.
        tbt: it finished and no gap between two of its tokens exceeded its TBT SLO (one token has no gap).
    """

    ttft: NDArray[np.bool_]
    tbt: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Records, ttft_slo_s: Floats | float, tbt_slo_s: Floats | float) -> "Attainment":
        """Compare records with their SLOs, in seconds, one for all or one a record."""
        finished = ~np.isnan(records["last_token_s"])
        # A nan compares false: no first token, no attainment.
        ttft = records["first_token_s"] - records["arrival_s"] <= ttft_slo_s
        gap_s = np.where(records["output_tokens"] > 1, records["tbt_max_s"], 0.0)
        return cls(ttft, finished & (gap_s <= tbt_slo_s))

    @property
    def both(self) -> NDArray[np.bool_]:
        """Which requests met both."""
        return self.ttft & self.tbt


@dataclass(frozen=True)
class Metrics:
    """The numbers of one run. Times in seconds; shares in [0, 1]; nan where nothing is there to measure.

    Over the requests of the measured window, except: tbt_* (but tbt_max) are over the single gaps of decode
    runs that began in it; kv_bytes_moved, chunk_steps, over_slo_*, kv_expired, prefix_hit_share, preemptions, events,
    decision times and busy shares are of the whole run. prefix_hit_share is the prompt tokens that came out of a prefix
    cache and were not computed, over all prompt tokens. tbt_max_p95_s is over each request's longest gap (outputs of
    one token and rejected requests have none and are left out).
    """

    requests: int
    finished_share: float
    censored: int
    rejected: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    tbt_mean_s: float
    tbt_p50_s: float
    tbt_p95_s: float
    tbt_p99_s: float
    tbt_max_p95_s: float
    tpot_mean_s: float
    e2e_mean_s: float
    e2e_p95_s: float
    slo_attainment: float
    ttft_attainment: float
    tbt_attainment: float
    goodput_rps: float
    goodput_rps_per_gpu: float
    throughput_rps: float
    deflected_share: float
    prefill_busy_share: float
    decode_busy_share: float
    kv_bytes_moved: float
    queue_share_p95: float
    exec_share_p95: float
    transfer_share_p95: float
    decode_wait_share_p95: float
    decision_us_p50: float
    decision_us_p99: float
    chunk_steps: int
    chunk_steps_over_slo_share: float
    over_slo_decode_alone: int
    over_slo_minimum: int
    kv_expired: int
    prefix_hit_share: float
    preemptions: int
    events: int

    @classmethod
    def names(cls) -> list[str]:
        """The columns, in order."""
        return [field.name for field in fields(cls)]


def gpus(config: ClusterConfig) -> int:
    """GPUs of a cluster; a node is as many as its profile's tensor-parallel group has."""
    return sum(parse_shape(config.shape)) * int(config.profile.provenance.get("tp", 1))


def _quantiles(values: Floats, *qs: float) -> list[float]:
    """Quantiles of `values`; nan without values."""
    return [float(value) for value in np.quantile(values, qs)] if len(values) else [np.nan] * len(qs)


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan


def measure(result: RunResult, workload: Workload, config: ClusterConfig) -> Metrics:
    """The metrics of one run of `workload`.

    Args:
        result: what `simulate` returned.
        workload: the requests that were run; its SLOs decide attainment.
        config: the cluster it ran on.
    """
    everything = as_array(result.records)
    window = measured(everything)
    start_s, end_s = window_start_s(everything), float(everything["arrival_s"].max())
    duration_s = end_s - start_s
    records = everything[window]
    index = records["request"]
    met = Attainment.of(records, workload.ttft_slo_s[index], workload.tbt_slo_s[index])
    ttft = ttft_s(records, result.end_s)
    ttft_p50, ttft_p90, ttft_p95, ttft_p99 = _quantiles(ttft, 0.5, 0.9, 0.95, 0.99)
    turned_away = rejected(records)
    several = records[(records["output_tokens"] > 1) & ~turned_away]
    tpot = (several["last_token_s"] - several["first_token_s"]) / (several["output_tokens"] - 1)
    e2e = records["last_token_s"] - records["arrival_s"]
    finished = ~np.isnan(e2e)
    leaves_s = everything["last_token_s"]
    left = int(np.count_nonzero((leaves_s >= start_s) & (leaves_s <= end_s)))
    gaps = Gaps.between(result.gaps, start_s, end_s)
    parts_s = parts_at_quantile_s(records, result.end_s)
    shares = parts_s / parts_s.sum() if parts_s.sum() > 0 else np.full(len(PARTS), np.nan)
    decision_us = result.decision_s * 1e6
    counters = result.counters
    prefill_nodes, _ = parse_shape(config.shape)
    busy_share = np.array(counters.busy_s) / result.end_s if result.end_s > 0 else np.zeros(len(counters.busy_s))
    goodput_rps = int(met.both.sum()) / duration_s if duration_s > 0 else np.nan
    return Metrics(
        requests=len(records),
        finished_share=_mean(finished),
        censored=int(np.isnan(records["first_token_s"]).sum()),
        rejected=int(turned_away.sum()),
        ttft_mean_s=_mean(ttft),
        ttft_p50_s=ttft_p50,
        ttft_p90_s=ttft_p90,
        ttft_p95_s=ttft_p95,
        ttft_p99_s=ttft_p99,
        tbt_mean_s=gaps.mean_s(),
        tbt_p50_s=gaps.quantile_s(0.5),
        tbt_p95_s=gaps.quantile_s(0.95),
        tbt_p99_s=gaps.quantile_s(0.99),
        tbt_max_p95_s=_quantiles(several["tbt_max_s"], 0.95)[0],
        tpot_mean_s=_mean(tpot[~np.isnan(tpot)]),
        e2e_mean_s=_mean(e2e[finished]),
        e2e_p95_s=_quantiles(e2e[finished], 0.95)[0],
        slo_attainment=_mean(met.both),
        ttft_attainment=_mean(met.ttft),
        tbt_attainment=_mean(met.tbt),
        goodput_rps=goodput_rps,
        goodput_rps_per_gpu=goodput_rps / gpus(config),
        throughput_rps=left / duration_s if duration_s > 0 else np.nan,
        deflected_share=_mean(records["deflected"]),
        prefill_busy_share=float(busy_share[:prefill_nodes].mean()),
        decode_busy_share=float(busy_share[prefill_nodes:].mean()),
        kv_bytes_moved=float(counters.kv_bytes_moved),
        queue_share_p95=float(shares[0]),
        exec_share_p95=float(shares[1]),
        transfer_share_p95=float(shares[2]),
        decode_wait_share_p95=float(shares[3]),
        decision_us_p50=_quantiles(decision_us, 0.5)[0],
        decision_us_p99=_quantiles(decision_us, 0.99)[0],
        chunk_steps=counters.chunk_steps,
        chunk_steps_over_slo_share=counters.chunk_steps_over_slo / counters.chunk_steps
        if counters.chunk_steps
        else 0.0,
        over_slo_decode_alone=counters.over_slo_decode_alone,
        over_slo_minimum=counters.over_slo_minimum,
        kv_expired=counters.kv_expired,
        prefix_hit_share=counters.prefix_hit_tokens / int(everything["prompt_tokens"].sum()),
        preemptions=counters.preemptions,
        events=counters.events,
    )
