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
from experiments.metrics import Records, measured, rejected, ttft_s
from experiments.statistics import Interval

Floats = NDArray[np.float64]


class Runs:
    """The outcomes of one policy on one workload at one load, one a seed.

    Args:
        outcomes: at least one; several policies are compared seed by seed, so in the same order of seeds.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self._intervals: dict[tuple[str, Runs | None], Interval] = {}

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
        return len({out.tally.requests for out in self.outcomes}) == 1

    @property
    def ttft_s(self) -> list[Floats]:
        """TTFT of each run's requests, seconds."""
        return [ttft_s(records, out.end_s) for out, (records, _) in zip(self.outcomes, self.windows, strict=True)]

    @property
    def parts_s(self) -> Floats:
        """Mean parts of the TTFT around P95, seconds, shape (4,); mean over runs."""
        means: Floats = np.mean([out.tally.parts_s for out in self.outcomes], axis=0)
        return means

    def deflected_by_prompt(self) -> list[float]:
        """Share deflected of the requests in each bucket of prompt tokens; nan where there is none."""
        prompts, deflected = np.sum([[out.tally.prompts, out.tally.deflected] for out in self.outcomes], axis=0)
        return [float(share) for share in deflected / np.where(prompts, prompts, np.nan)]

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
        return self._once(name, None, lambda: self._estimate(name))

    def _estimate(self, name: str) -> Interval:
        if not self.same_requests:
            return statistics.mean_interval(self.column(name))
        if name in _OF_REQUESTS:
            values_of, q = _OF_REQUESTS[name]
            values = np.stack(values_of(self))
            return statistics.block_mean_interval(values) if q is None else statistics.quantile_interval(values, q)
        return Interval(self.mean(name), np.nan, np.nan)

    def difference(self, name: str, base: "Runs") -> Interval:
        """This policy's metric less that of `base` on the same requests, paired."""
        return self._once(name, base, lambda: self._difference(name, base))

    def _difference(self, name: str, base: "Runs") -> Interval:
        if not self.same_requests:
            return statistics.mean_interval(self.column(name) - base.column(name))
        values_of, q = _OF_REQUESTS[name]
        values, others = np.stack(values_of(self)), np.stack(values_of(base))
        if q is None:
            return statistics.block_mean_interval(values - others)
        return statistics.quantile_difference(values, others, q)

    def ttft_p95_ratio(self, base: "Runs") -> Interval:
        """This policy's P95 TTFT over that of `base` on the same requests, paired."""
        return self._once("ttft_p95_ratio", base, lambda: self._ttft_p95_ratio(base))

    def _ttft_p95_ratio(self, base: "Runs") -> Interval:
        if not self.same_requests:
            return statistics.ratio_interval(self.column("ttft_p95_s"), base.column("ttft_p95_s"))
        return statistics.quantile_ratio(np.stack(self.ttft_s), np.stack(base.ttft_s), 0.95)

    def _once(self, name: str, base: "Runs | None", interval: Callable[[], Interval]) -> Interval:
        """An interval, resampled the first time it is asked for: a report shows some of them three times."""
        if (name, base) not in self._intervals:
            self._intervals[name, base] = interval()
        return self._intervals[name, base]


def _met(runs: Runs) -> list[Floats]:
    return [met.astype(np.float64) for _, met in runs.windows]


def _longest_gaps(runs: Runs) -> list[Floats]:
    return [records["tbt_max_s"][(records["output_tokens"] > 1) & ~rejected(records)] for records, _ in runs.windows]


_OF_REQUESTS: dict[str, tuple[Callable[[Runs], list[Floats]], float | None]] = {
    "ttft_mean_s": (lambda runs: runs.ttft_s, None),
    "ttft_p95_s": (lambda runs: runs.ttft_s, 0.95),
    "tbt_max_p95_s": (_longest_gaps, 0.95),
    "slo_attainment": (_met, None),
}
"""How a metric comes from the requests: their values, and the quantile (None: the mean)."""
