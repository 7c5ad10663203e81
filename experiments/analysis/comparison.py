"""Runs in groups, and paired estimates between policies.

A group holds every policy's runs on one workload at one load, which are on the same requests. Estimates are over seeds
if the seeds gave different requests, else (a trace) over blocks of the one set of requests, because runs on the same
requests say nothing about other requests.
"""

from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Literal

import numpy as np

from experiments.analysis import bootstrap
from experiments.analysis.bootstrap import Estimate, Interval
from experiments.analysis.metrics import METRIC, MeasuredRequests
from experiments.analysis.outcome import Outcome
from experiments.analysis.request_table import Floats, measured

BASE = "static"
Verdict = Literal["better", "worse", "tied", "too few seeds"]


class Runs:
    """The outcomes of one policy on one workload at one load, one per seed, in the same order for all policies.

    `estimate` is a metric with its replicates.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self.policy = outcomes[0].policy
        self.estimate = cache(self._estimate)

    @cached_property
    def same_requests(self) -> bool:
        """Whether every seed had the same requests."""
        return len({outcome.requests_digest for outcome in self.outcomes}) == 1

    @property
    def requests(self) -> list[MeasuredRequests]:
        """The measured requests of each run; read anew each time."""
        found = []
        for outcome in self.outcomes:
            records, met = outcome.requests
            window = measured(records)
            found.append(MeasuredRequests(records[window], met[window], outcome.end_s))
        return found

    @property
    def parts_s(self) -> Floats:
        """Mean parts of the TTFT around P95, seconds, shape (4,); mean over runs."""
        return np.asarray(np.mean([outcome.summary.parts_s for outcome in self.outcomes], axis=0))

    def deflected_by_prompt(self) -> list[float]:
        """Share of deflected requests in each bucket of prompt tokens; nan if a bucket is empty."""
        summaries = [outcome.summary for outcome in self.outcomes]
        prompts, deflected = np.sum([[one.prompts, one.deflected] for one in summaries], axis=0)
        return [float(share) for share in deflected / np.where(prompts, prompts, np.nan)]

    def column(self, metric: str) -> Floats:
        """A metric of each run, shape (seeds,)."""
        return np.array([outcome.metrics[metric] for outcome in self.outcomes], dtype=np.float64)

    def mean(self, metric: str) -> float:
        """Mean over seeds of a metric."""
        return float(self.column(metric).mean())

    def total(self, metric: str) -> float:
        """Sum over seeds of a metric."""
        return sum(outcome.metrics[metric] for outcome in self.outcomes)

    def _estimate(self, metric: str) -> Estimate:
        """Over one set of requests, metrics that are not of single requests have no replicates, nan as intervals."""
        if not self.same_requests:
            return bootstrap.seed_mean(self.column(metric))
        sample, q = METRIC[metric].sample, METRIC[metric].q
        values = [sample(requests).astype(np.float64) for requests in self.requests] if sample else []
        if len(set(map(len, values))) != 1:
            return Estimate(self.mean(metric), np.array([self.mean(metric)]), 1)
        return bootstrap.block_mean(np.stack(values)) if q is None else bootstrap.block_quantile(np.stack(values), q)

    def units(self, metric: str) -> int:
        """Seeds, or blocks of the requests of a trace; with few of them no tie is claimed."""
        generated = not np.isnan(self.outcomes[0].nominal_rps)
        return len(self.outcomes) if generated else self.estimate(metric).units

    def interval(self, metric: str) -> Interval:
        """A metric with its interval."""
        return self.estimate(metric).interval(log=METRIC[metric].is_latency)

    def ratio(self, metric: str, base: "Runs") -> Interval:
        """This policy's metric over that of `base` on the same requests, paired."""
        return self.estimate(metric).over(base.estimate(metric)).interval(log=True)

    def difference(self, metric: str, base: "Runs") -> Interval:
        """This policy's metric minus that of `base` on the same requests, paired."""
        return self.estimate(metric).minus(base.estimate(metric)).interval()

    def change(self, metric: str, base: "Runs") -> Interval:
        """How a metric compares with that of `base`: a latency by its ratio, a share by its difference."""
        return self.ratio(metric, base) if METRIC[metric].is_latency else self.difference(metric, base)


def verdict(change: Interval, metric: str, units: int) -> Verdict:
    """The verdict of the interval of a change (see `Runs.change`), from a number of seeds or blocks of requests."""
    same = 1.0 if METRIC[metric].is_latency else 0.0
    if change.excludes(same):
        return "better" if (change.value < same) == (METRIC[metric].better == "lower") else "worse"
    return "tied" if units >= bootstrap.FEWEST_UNITS else "too few seeds"


Group = dict[str, Runs]
"""The runs of every policy on one workload at one load, by label."""
Key = tuple[str, float]
"""Workload and load."""


class Groups(dict[Key, Group]):
    """Groups by (workload, load); every group has the same policies, in the order given."""

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Groups":
        """Group outcomes; workloads and policies in the order given, loads and seeds ascending."""
        found: dict[Key, dict[str, list[Outcome]]] = {}
        for one in outcomes:
            found.setdefault((one.workload, one.load), {}).setdefault(one.policy.label, []).append(one)
        order = list(dict.fromkeys(workload for workload, _ in found))
        groups = cls()
        for key in sorted(found, key=lambda key: (order.index(key[0]), key[1])):
            groups[key] = {label: Runs(sorted(of, key=lambda one: one.seed)) for label, of in found[key].items()}
        return groups

    @property
    def workloads(self) -> list[str]:
        """Names of the workloads, in order."""
        return list(dict.fromkeys(workload for workload, _ in self))

    @property
    def policies(self) -> list[str]:
        """Labels of the policies, in the order given."""
        return list(next(iter(self.values())))

    @property
    def base(self) -> str:
        """The policy that the others are compared with: BASE, or the first if it was not run."""
        return BASE if BASE in self.policies else self.policies[0]

    @property
    def seeds(self) -> int:
        """Runs of a policy in a group, at most."""
        return max(len(runs.outcomes) for group in self.values() for runs in group.values())

    def of_workload(self, workload: str) -> "Groups":
        """The groups of one workload."""
        return Groups({key: group for key, group in self.items() if key[0] == workload})

    def shown_load(self, workload: str) -> float:
        """The load that stands for a workload in tables of one load."""
        return shown_load([load for name, load in self if name == workload])

    @property
    def shown(self) -> "Groups":
        """The groups of an overview: each workload at its shown load, or a single workload at all its loads."""
        if len(self.workloads) == 1:
            return self
        return Groups({key: group for key, group in self.items() if key[1] == self.shown_load(key[0])})

    @property
    def ranked(self) -> list[str]:
        """The policies by P95 TTFT, lowest first: by its mean logarithm over the groups of the overview."""
        shown = self.shown.values()
        return sorted(
            self.policies, key=lambda policy: np.mean([np.log(group[policy].mean("ttft_p95_s")) for group in shown])
        )

    def highlighted(self, most: int = 7) -> list[str]:
        """Policies for a crowded figure: the base, learned and clairvoyant ones, and the best others by P95 TTFT."""
        any_group = next(iter(self.values()))
        marked = [name for name, runs in any_group.items() if runs.policy.clairvoyant or runs.policy.learned]
        chosen = list(dict.fromkeys([self.base, *marked, *self.ranked]))[:most]
        return [name for name in self.policies if name in chosen]


def shown_load(loads: Sequence[float]) -> float:
    """The highest load not above 1 (the knee, or the trace as it is), else the lowest."""
    return max((load for load in loads if load <= 1), default=min(loads))
