"""How well live runs agree with simulations of the same requests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.analysis.outcome import Outcome
from experiments.analysis.request_table import Floats, Records, measured, ttft_s


class Agreement(NamedTuple):
    """A policy on one workload: its live runs next to the simulations of the same requests.

    Attributes:
        mean_s, p50_s, p95_s: TTFT, live and simulated; means over the seeds.
        correlation: of the TTFT of single requests; nan if all are equal.
        same_placements: share of the requests with the same nodes.
        ready_to_first_s: the longest time from KV ready to first token of a request that was not deflected; 0 if all
            were.
        decision_us: P99 of the time of a decision, the mean over live runs, microseconds.
    """

    policy: str
    workload: str
    seeds: int
    mean_s: tuple[float, float]
    p50_s: tuple[float, float]
    p95_s: tuple[float, float]
    correlation: float
    same_placements: float
    deflected: tuple[float, float]
    ready_to_first_s: tuple[float, float]
    decision_us: float

    @property
    def error(self) -> float:
        """Relative difference of the mean TTFT, live over simulated."""
        return self.mean_s[0] / self.mean_s[1] - 1.0

    @classmethod
    def of(cls, live: Sequence[Outcome], simulated: Sequence[Outcome]) -> "Agreement":
        """Compare runs, in the same order of seeds."""
        tables = [(_window(one), _window(other)) for one, other in zip(live, simulated, strict=True)]
        waits = [
            (ttft_s(one, run.end_s), ttft_s(other, twin.end_s))
            for (one, other), run, twin in zip(tables, live, simulated, strict=True)
        ]

        def both(of: Sequence[tuple[Floats, Floats]], q: float | None) -> tuple[float, float]:
            live_s, simulated_s = (
                float(np.mean([run.mean() if q is None else np.quantile(run, q) for run in side]))
                for side in zip(*of, strict=True)
            )
            return live_s, simulated_s

        columns = ("prefill_node", "decode_node")
        same = [np.all([one[name] == other[name] for name in columns], axis=0).mean() for one, other in tables]
        return cls(
            live[0].policy.label,
            live[0].workload,
            len(live),
            both(waits, None),
            both(waits, 0.5),
            both(waits, 0.95),
            float(np.mean([np.corrcoef(*pair)[0, 1] for pair in waits])),
            float(np.mean(same)),
            (_mean([one["deflected"] for one, _ in tables]), _mean([other["deflected"] for _, other in tables])),
            (max(_longest_wait(one) for one, _ in tables), max(_longest_wait(other) for _, other in tables)),
            float(np.mean([run.metrics["decision_us_p99"] for run in live])),
        )


def agreements(live: Sequence[Outcome], simulated: Sequence[Outcome]) -> list[Agreement]:
    """Compare the runs of each policy and workload; both hold runs of the same requests, in the same order."""
    groups: dict[tuple[str, str], list[tuple[Outcome, Outcome]]] = {}
    for pair in zip(live, simulated, strict=True):
        groups.setdefault((pair[0].workload, pair[0].policy.label), []).append(pair)
    return [Agreement.of(*zip(*pairs, strict=True)) for pairs in groups.values()]


def _mean(tables: Sequence[Floats]) -> float:
    return float(np.mean([table.mean() for table in tables]))


def _window(run: Outcome) -> Records:
    records, _ = run.requests
    return np.asarray(records[measured(records)])


def _longest_wait(records: Records) -> float:
    handed_over = records[~records["deflected"].astype(bool)]
    waits_s = handed_over["first_token_s"] - handed_over["kv_ready_s"]
    return float(np.nanmax(waits_s)) if len(waits_s) else 0.0


class Order(NamedTuple):
    """Two policies on a workload whose simulated mean TTFT differs: whether the live runs have the same order."""

    workload: str
    faster: Agreement
    slower: Agreement

    @property
    def simulated(self) -> float:
        """Relative difference in simulation."""
        return self.slower.mean_s[1] / self.faster.mean_s[1] - 1.0

    @property
    def live(self) -> float:
        """Relative difference live; below 0 in the other order."""
        return self.slower.mean_s[0] / self.faster.mean_s[0] - 1.0


def orders(found: Sequence[Agreement], least: float = 0.1) -> list[Order]:
    """All pairs of policies on one workload that differ in simulation by more than `least`."""
    pairs = [
        Order(one.workload, one, other)
        for one in found
        for other in found
        if one.workload == other.workload and one.mean_s[1] < other.mean_s[1]
    ]
    return [pair for pair in pairs if pair.simulated > least]
