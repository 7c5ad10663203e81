"""Estimates with intervals, for the runs of one policy on one workload at one load.

Over seeds where the seeds gave different requests; over blocks of the requests where there is one set of
them (a trace), because runs on the same requests say nothing about other requests.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from experiments import statistics
from experiments.cells import Outcome
from experiments.metrics import Records, measured, parts_at_quantile_s, ttft_s
from experiments.statistics import Interval

Floats = NDArray[np.float64]

PROMPT_BUCKETS = (512, 2048, 8192)
"""Upper ends of buckets of prompt tokens: the border of the families, a chunk budget, a long prompt."""


class Runs:
    """The outcomes of one policy on one workload at one load, one a seed.

    Args:
        outcomes: at least one; several policies are compared seed by seed, so in the same order of seeds.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes

    @property
    def windows(self) -> list[tuple[Records, NDArray[np.bool_]]]:
        """Records of each run's measured window, and whether each request met its SLOs; read anew each time."""
        kept = []
        for out in self.outcomes:
            records, met = out.requests
            inside = measured(records)
            kept.append((records[inside], met[inside]))
        return kept

    @cached_property
    def same_requests(self) -> bool:
        """Whether every seed had the same requests."""
        first, *others = [records for records, _ in self.windows]
        columns = ["arrival_s", "prompt_tokens", "output_tokens"]
        return all(np.array_equal(records[columns], first[columns]) for records in others)

    @property
    def ttft_s(self) -> list[Floats]:
        """TTFT of each run's requests, seconds."""
        return [ttft_s(records, out.end_s) for out, (records, _) in zip(self.outcomes, self.windows, strict=True)]

    @cached_property
    def parts_s(self) -> Floats:
        """Mean parts of the TTFT around P95, seconds, shape (4,); mean over runs."""
        pairs = zip(self.outcomes, self.windows, strict=True)
        means: Floats = np.mean([parts_at_quantile_s(records, out.end_s) for out, (records, _) in pairs], axis=0)
        return means

    def deflected_by_prompt(self) -> list[float]:
        """Share deflected of the requests in each bucket of prompt tokens; nan where there is none."""
        records = np.concatenate([records for records, _ in self.windows])
        bucket = np.searchsorted(PROMPT_BUCKETS, records["prompt_tokens"])
        counts = np.bincount(bucket, minlength=len(PROMPT_BUCKETS) + 1)
        deflected = np.bincount(bucket, records["deflected"], len(PROMPT_BUCKETS) + 1)
        return [float(share) for share in deflected / np.where(counts, counts, np.nan)]

    def column(self, name: str) -> Floats:
        """A metric of each run, shape (seeds,)."""
        return np.array([getattr(out.metrics, name) for out in self.outcomes], dtype=np.float64)

    def mean(self, name: str) -> float:
        """Mean over seeds of a metric."""
        return float(self.column(name).mean())

    def estimate(self, name: str) -> Interval:
        """A metric with its interval: mean over seeds, or over the one set of requests.

        Metrics that are not of single requests have no interval (nan) over one set of requests.
        """
        if not self.same_requests:
            return statistics.mean_interval(self.column(name))
        if name in _OF_REQUESTS:
            values_of, q = _OF_REQUESTS[name]
            values = np.stack(values_of(self))
            return statistics.block_mean_interval(values) if q is None else statistics.quantile_interval(values, q)
        return Interval(self.mean(name), np.nan, np.nan)

    def difference(self, name: str, base: "Runs") -> Interval:
        """This policy's metric less that of `base` on the same requests, paired."""
        if not self.same_requests:
            return statistics.mean_interval(self.column(name) - base.column(name))
        values_of, q = _OF_REQUESTS[name]
        values, others = np.stack(values_of(self)), np.stack(values_of(base))
        if q is None:
            return statistics.block_mean_interval(values - others)
        return statistics.quantile_difference(values, others, q)

    def ttft_p95_ratio(self, base: "Runs") -> Interval:
        """This policy's P95 TTFT over that of `base` on the same requests, paired."""
        if not self.same_requests:
            return statistics.ratio_interval(self.column("ttft_p95_s"), base.column("ttft_p95_s"))
        return statistics.quantile_ratio(np.stack(self.ttft_s), np.stack(base.ttft_s), 0.95)


def _met(runs: Runs) -> list[Floats]:
    return [met.astype(np.float64) for _, met in runs.windows]


def _longest_gaps(runs: Runs) -> list[Floats]:
    return [records["tbt_max_s"][records["output_tokens"] > 1] for records, _ in runs.windows]


_OF_REQUESTS: dict[str, tuple[Callable[[Runs], list[Floats]], float | None]] = {
    "ttft_mean_s": (lambda runs: runs.ttft_s, None),
    "ttft_p95_s": (lambda runs: runs.ttft_s, 0.95),
    "tbt_max_p95_s": (_longest_gaps, 0.95),
    "slo_attainment": (_met, None),
}
"""How a metric comes from the requests: their values, and the quantile (None: the mean)."""
