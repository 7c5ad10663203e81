"""The tables of a comparison: one row per workload, load and policy, each table a list of columns."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from experiments.analysis.comparison import Groups, Runs, verdict
from experiments.analysis.metrics import METRIC
from experiments.analysis.request_table import PROMPT_BUCKETS
from experiments.reports import formatting as show
from experiments.reports.columns import Column, each, table

CHUNK_STEPS_ARE = (
    "A chunk step carries prompt tokens and at least one decode. It is over if it lasts longer than the strictest TBT "
    "SLO among its decodes: because the decodes alone would, because of the minimum that a prompt progresses by (step "
    "budget slo), or because of more prompt tokens than that."
)


class Line(NamedTuple):
    """A row: the runs of a policy on a workload at a load, and those of the policy that it is compared with."""

    runs: Runs
    base: Runs


def per_policy(groups: Groups, columns: Sequence[Column[Line]], against: str = "") -> str:
    """A table with one row per workload, load and policy, except that which the others are compared `against`."""
    keys = show.keys(lambda line: line.runs.outcomes[0])[len(groups.workloads) == 1 :]
    named = [(group, policy) for group in groups.values() for policy in group if policy != against]
    return table([*keys, *columns], [Line(group[policy], group[against or policy]) for group, policy in named])


def _metrics(*names: str) -> dict[str, str]:
    return {show.heading(METRIC[name]): name for name in names}


def _interval(metric: str, line: Line) -> str:
    return show.estimate(metric, line.runs.interval(metric))


def _mean(metric: str, line: Line) -> str:
    return show.value(METRIC[metric], line.runs.mean(metric))


def _total(metric: str, line: Line) -> str:
    return f"{line.runs.total(metric):,}"


def _said(line: Line, metric: str) -> str:
    return verdict(line.runs.change(metric, line.base), metric, line.runs.units(metric))


def _chunk_steps(reason: int, line: Line) -> str:
    """The share of chunk steps that are over their SLO: all, by decodes alone, by the minimum, by more tokens."""
    steps, alone, minimum = map(line.runs.total, ("chunk_steps", "over_slo_decode_alone", "over_slo_minimum"))
    metrics = [outcome.metrics for outcome in line.runs.outcomes]
    over = sum(round(one["chunk_steps"] * one["chunk_steps_over_slo_share"]) for one in metrics)
    count = (over, alone, minimum, over - alone - minimum)[reason]
    return f"{100 * count / steps:.3f}" if steps else "none"


DIFFERENCES: list[Column[Line]] = [
    Column(
        "TTFT mean (ms)",
        lambda line: show.with_interval(line.runs.difference("ttft_mean_s", line.base), show.signed(show.ms)),
    ),
    Column("TTFT P95 (%)", lambda line: show.change(line.runs.ratio("ttft_p95_s", line.base))),
    Column("TTFT P95 is", lambda line: _said(line, "ttft_p95_s")),
    Column("SLO attainment (points)", lambda line: show.points(line.runs.difference("slo_attainment", line.base))),
    Column("attainment is", lambda line: _said(line, "slo_attainment")),
]
"""Paired differences, for `per_policy` against a policy. The verdicts go by the intervals shown."""

_PARTS = {"queue (%)": 0, "execution (%)": 1, "transfer (%)": 2, "decode wait (%)": 3}
_BUCKETS = {f"{low + 1}-{high} (%)": bucket for bucket, (low, high) in enumerate(pairwise([0, *PROMPT_BUCKETS]))}
_BUCKETS |= {f"over {PROMPT_BUCKETS[-1]} (%)": len(PROMPT_BUCKETS)}
_REASONS = {"over (%)": 0, "decodes alone (%)": 1, "minimum (%)": 2, "more prompt tokens (%)": 3}

RESULTS: list[Column[Line]] = [
    *each(_metrics("requests"), _total),
    *each(
        _metrics("ttft_mean_s", "ttft_p95_s", "tbt_p99_s", "tbt_max_p95_s", "slo_attainment", "goodput_rps_per_gpu"),
        _interval,
    ),
]
"""The table of results; to show another metric, add its name."""
PERCENTILES: list[Column[Line]] = each(
    {f"{name.upper()} P{q} (ms)": f"{name}_p{q}_s" for name in ("ttft", "tpot", "e2e") for q in (50, 90, 95, 99)},
    lambda metric, line: show.ms(line.runs.mean(metric)),
)
"""Means over seeds of percentiles, as vLLM's benchmark prints them."""
BREAKDOWN: list[Column[Line]] = [
    Column("TTFT (ms)", lambda line: show.ms(line.runs.parts_s.sum())),
    *each(_PARTS, lambda part, line: show.percent(line.runs.parts_s[part] / line.runs.parts_s.sum())),
]
"""The parts of TTFT around P95."""
DEFLECTION: list[Column[Line]] = [
    *each(_metrics("deflected_share"), _mean),
    *each(_BUCKETS, lambda bucket, line: show.known(line.runs.deflected_by_prompt()[bucket], show.percent)),
    *each(_metrics("kv_bytes_moved"), _mean),
]
"""The prompts that were deflected, by length, and the KV that moved."""
CHUNK_STEPS: list[Column[Line]] = [*each(_metrics("chunk_steps"), _total), *each(_REASONS, _chunk_steps)]
"""Steps that exceed the TBT SLO of their decodes, and why."""
RUN_HEALTH: list[Column[Line]] = [
    *each(_metrics("censored"), _total),
    Column("of them rejected", lambda line: f"{line.runs.total('rejected'):,}"),
    Column("unfinished (%)", lambda line: show.percent(1 - line.runs.mean("finished_share"))),
    *each(_metrics("preemptions"), _mean),
    *each(_metrics("kv_expired"), _total),
    *each(_metrics("prefill_busy_share", "decode_busy_share", "decision_us_p50", "decision_us_p99"), _mean),
]
"""Whether runs are in order, and what decisions cost."""
