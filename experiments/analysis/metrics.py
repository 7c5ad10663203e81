"""The metrics of a run, one row each. A metric that is added to METRICS is a column of cells.csv from then on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, RunResult, parse_shape
from envs.workload import Workload
from experiments.analysis import request_table
from experiments.analysis.inter_token import Gaps
from experiments.analysis.request_table import Attainment, Flags, Floats, Records, rejected

Unit = Literal["s", "share", "count", "tokens", "rps", "bytes", "us"]
Better = Literal["lower", "higher", ""]


@dataclass(frozen=True)
class MeasuredRequests:
    """The requests of a run's measured window, whether each met both SLOs, and when the run ended, seconds."""

    records: Records
    met: Flags
    end_s: float

    @cached_property
    def ttft_s(self) -> Floats:
        """TTFT of each request, seconds."""
        return request_table.ttft_s(self.records, self.end_s)

    @cached_property
    def several(self) -> Records:
        """Requests with two output tokens or more that were not rejected: those that have gaps."""
        return np.asarray(self.records[(self.records["output_tokens"] > 1) & ~rejected(self.records)])


class MeasuredRun:
    """One run as metrics see it: what `simulate` returned, the requests with their SLOs, and the cluster.

    Attributes:
        all_records: all requests, warm-up included, and `attainment` of their SLOs.
        window: which of them are of the measured window, from and to `span_s`, seconds.
        requests: those of the measured window.
        gaps: between tokens of decode runs that began in it.
        handed_over_share: share of the decisions that a learned policy left to a rule; nan for other policies.
    """

    def __init__(
        self,
        result: RunResult,
        workload: Workload,
        config: ClusterConfig,
        handed_over_share: float = nan,
    ) -> None:
        self.result, self.workload, self.config = result, workload, config
        self.handed_over_share = handed_over_share
        self.all_records = records = request_table.as_array(result.records)
        slos_s = workload.ttft_slo_s[records["request"]], workload.tbt_slo_s[records["request"]]
        self.attainment = Attainment.of(records, *slos_s)
        self.window = request_table.measured(records)
        self.span_s = request_table.window_start_s(records), float(records["arrival_s"].max())
        self.requests = MeasuredRequests(records[self.window], self.attainment.both[self.window], result.end_s)
        self.gaps = Gaps.between(result.gaps, *self.span_s)

    @cached_property
    def part_shares(self) -> list[float]:
        """Shares of `request_table.PARTS` in the TTFT around P95."""
        parts_s = request_table.parts_at_quantile_s(self.requests.records, self.result.end_s)
        return list(map(float, parts_s / parts_s.sum() if parts_s.sum() > 0 else parts_s * np.nan))

    def per_second(self, count: int) -> float:
        """A count per second of the measured window; nan if the window has no length."""
        start_s, end_s = self.span_s
        return count / (end_s - start_s) if end_s > start_s else np.nan

    def aggregated_share(self) -> float:
        """Share of the requests that a prefill node both prefilled and decoded."""
        split, _ = parse_shape(self.config.shape)
        records = self.requests.records
        return _mean(records["deflected"].astype(bool) & (records["decode_node"] < split))

    def busy_share(self, prefill: bool) -> float:
        """Mean share of the run that the prefill nodes, or the decode nodes, spent in steps."""
        split, _ = parse_shape(self.config.shape)
        busy_s = np.array(self.result.counters.busy_s[:split] if prefill else self.result.counters.busy_s[split:])
        return float((busy_s / self.result.end_s).mean()) if self.result.end_s > 0 else 0.0


Sample = Callable[[MeasuredRequests], NDArray[Any]]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: column of cells.csv, with its unit.
        unit: decides how a value is printed.
        better: which direction is; "" if neither is.
        title: in tables, without the unit.
        of: the value of a run; nan if there is nothing to measure.
        sample: for a metric that follows from single requests, one number of each; its interval on a trace is over
            them.
        q: the quantile of `sample`; None: its mean.
    """

    name: str
    unit: Unit
    better: Better
    title: str
    of: Callable[[MeasuredRun], float]
    sample: Sample | None = None
    q: float | None = None

    @property
    def is_latency(self) -> bool:
        """Whether intervals are taken on the logarithmic scale."""
        return self.unit == "s"


def gpus(config: ClusterConfig) -> int:
    """GPUs of a cluster; a node is as many as its profile's tensor-parallel group has."""
    return sum(parse_shape(config.shape)) * int(config.profile.provenance.get("tp", 1))


def _tpot_s(these: MeasuredRequests) -> Floats:
    """Time per output token after the first of each finished request with several tokens, seconds."""
    rows = these.several
    return _known((rows["last_token_s"] - rows["first_token_s"]) / (rows["output_tokens"] - 1))


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _quantile(values: Floats, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else np.nan


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan


def _of_requests(name: str, unit: Unit, better: Better, title: str, sample: Sample, q: float | None = None) -> Metric:
    """A metric that is the mean, or a quantile, of one number per request."""

    def of(run: MeasuredRun) -> float:
        values = sample(run.requests)
        return _mean(values) if q is None else _quantile(values, q)

    return Metric(name, unit, better, title, of, sample, q)


def _latency(name: str, title: str, sample: Sample) -> list[Metric]:
    """Mean and percentiles of a latency."""
    shown = {"mean": None, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    return [
        _of_requests(f"{name}_{one}_s", "s", "lower", f"{title} {one.replace('p', 'P')}", sample, q)
        for one, q in shown.items()
    ]


def _counter(name: str, title: str, better: Better = "") -> Metric:
    return Metric(name, "count", better, title, lambda run: getattr(run.result.counters, name))


def _left(run: MeasuredRun) -> int:
    """Requests whose last token came in the measured window."""
    leaves_s = run.all_records["last_token_s"]
    return int(np.count_nonzero((leaves_s >= run.span_s[0]) & (leaves_s <= run.span_s[1])))


METRICS: tuple[Metric, ...] = (
    Metric("requests", "count", "", "requests", lambda run: len(run.requests.records)),
    _of_requests("finished_share", "share", "higher", "finished",
                 lambda these: ~np.isnan(these.records["last_token_s"])),
    # Requests without a first token when the run ended; their TTFT is a lower bound.
    Metric("censored", "count", "lower", "without first token",
           lambda run: int(np.isnan(run.requests.records["first_token_s"]).sum())),
    Metric("rejected", "count", "lower", "rejected", lambda run: int(rejected(run.requests.records).sum())),
    *_latency("ttft", "TTFT", lambda these: these.ttft_s),
    Metric("tbt_mean_s", "s", "lower", "TBT mean", lambda run: run.gaps.mean_s()),
    Metric("tbt_p50_s", "s", "lower", "TBT P50", lambda run: run.gaps.quantile_s(0.5)),
    Metric("tbt_p95_s", "s", "lower", "TBT P95", lambda run: run.gaps.quantile_s(0.95)),
    Metric("tbt_p99_s", "s", "lower", "TBT P99", lambda run: run.gaps.quantile_s(0.99)),
    # Over each request's longest gap.
    _of_requests("tbt_max_p95_s", "s", "lower", "longest gap P95", lambda these: these.several["tbt_max_s"], 0.95),
    *_latency("tpot", "TPOT", _tpot_s),
    *_latency("e2e", "E2E", lambda these: _known(these.records["last_token_s"] - these.records["arrival_s"])),
    _of_requests("slo_attainment", "share", "higher", "SLO attainment", lambda these: these.met),
    Metric("ttft_attainment", "share", "higher", "TTFT attainment", lambda run: _mean(run.attainment.ttft[run.window])),
    Metric("tbt_attainment", "share", "higher", "TBT attainment", lambda run: _mean(run.attainment.tbt[run.window])),
    Metric("goodput_rps", "rps", "higher", "goodput", lambda run: run.per_second(int(run.requests.met.sum()))),
    Metric("goodput_rps_per_gpu", "rps", "higher", "goodput per GPU",
           lambda run: run.per_second(int(run.requests.met.sum())) / gpus(run.config)),
    Metric("throughput_rps", "rps", "higher", "throughput", lambda run: run.per_second(_left(run))),
    _of_requests("deflected_share", "share", "", "deflected", lambda these: these.records["deflected"]),
    Metric("aggregated_share", "share", "", "aggregated on a prefill node", lambda run: run.aggregated_share()),
    Metric("prefill_busy_share", "share", "", "prefill nodes busy", lambda run: run.busy_share(prefill=True)),
    Metric("decode_busy_share", "share", "", "decode nodes busy", lambda run: run.busy_share(prefill=False)),
    # From here on: of the whole run, warm-up included, except the parts of the TTFT.
    Metric("kv_bytes_moved", "bytes", "lower", "KV moved", lambda run: float(run.result.counters.kv_bytes_moved)),
    Metric("queue_share_p95", "share", "", "queue in P95 TTFT", lambda run: run.part_shares[0]),
    Metric("exec_share_p95", "share", "", "execution in P95 TTFT", lambda run: run.part_shares[1]),
    Metric("transfer_share_p95", "share", "", "transfer in P95 TTFT", lambda run: run.part_shares[2]),
    Metric("decode_wait_share_p95", "share", "", "decode wait in P95 TTFT", lambda run: run.part_shares[3]),
    Metric("decision_us_p50", "us", "lower", "decision P50", lambda run: _quantile(run.result.decision_s * 1e6, 0.5)),
    Metric("decision_us_p99", "us", "lower", "decision P99", lambda run: _quantile(run.result.decision_s * 1e6, 0.99)),
    Metric("handed_over_share", "share", "", "handed over to a rule", lambda run: run.handed_over_share),
    _counter("chunk_steps", "chunk steps"),
    Metric("chunk_steps_over_slo_share", "share", "lower", "chunk steps over the TBT SLO",
           lambda run: run.result.counters.chunk_steps_over_slo / max(1, run.result.counters.chunk_steps)),
    _counter("over_slo_decode_alone", "over the TBT SLO by decodes alone"),
    _counter("over_slo_minimum", "over the TBT SLO by the minimum of prompt tokens"),
    _counter("kv_expired", "KV dropped after the hold", "lower"),
    # Prompt tokens that came out of a prefix cache and were not computed, over all prompt tokens.
    Metric("prefix_hit_share", "share", "higher", "prefix hits",
           lambda run: run.result.counters.prefix_hit_tokens / int(run.all_records["prompt_tokens"].sum())),
    _counter("preemptions", "preemptions", "lower"),
    _counter("events", "events"),
)  # fmt: skip

ATTAINMENT_MARGIN = 0.01
"""Rules whose SLO attainment is within this of the highest may be called the best by a latency."""

METRIC = {metric.name: metric for metric in METRICS}


def measure(run: MeasuredRun) -> dict[str, float]:
    """All metrics of one run, by name."""
    return {metric.name: metric.of(run) for metric in METRICS}
