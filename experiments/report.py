"""summary.md: what was run, and its results with intervals."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import isnan

import numpy as np

import policies
from experiments import statistics
from experiments.cells import Outcome
from experiments.estimates import PROMPT_BUCKETS, Runs
from experiments.statistics import Interval

BASE = "static"
Group = dict[str, Runs]
"""The runs of every policy on one workload at one load."""


def grouped(outcomes: Iterable[Outcome]) -> dict[tuple[str, float], Group]:
    """Outcomes by (workload, load), then by policy, in the order given; seeds ascend."""
    groups: dict[tuple[str, float], dict[str, list[Outcome]]] = {}
    for out in outcomes:
        cell = out.cell
        groups.setdefault((cell.workload, cell.load), {}).setdefault(cell.policy, []).append(out)
    return {
        key: {policy: Runs(sorted(runs, key=lambda out: out.cell.seed)) for policy, runs in by_policy.items()}
        for key, by_policy in groups.items()
    }


def base_of(group: Group) -> str:
    """The policy that the others are compared with: BASE, or the first where it was not run."""
    return BASE if BASE in group else next(iter(group))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with(interval: Interval, show: Callable[[float], str]) -> str:
    if isnan(interval.value):
        return "none"
    if isnan(interval.low):
        return show(interval.value)
    return f"{show(interval.value)} [{show(interval.low)}, {show(interval.high)}]"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}" if abs(seconds) < 1 else f"{seconds * 1e3:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(show: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: ("+" if value > 0 else "") + show(value)


def _verdict(difference: Interval, less_is_better: bool) -> str:
    if not difference.excludes_zero:
        return "undecided"
    return "better" if (difference.value < 0) == less_is_better else "worse"


def _rows(
    groups: dict[tuple[str, float], Group], row: Callable[[Runs, Group], list[str]], *, without: str | None = None
) -> list[list[str]]:
    """A row a (workload, load, policy), but for the policy `without`."""
    return [
        [workload, f"{load:g}", f"`{policies.label(policy)}`", *row(runs, group)]
        for (workload, load), group in groups.items()
        for policy, runs in group.items()
        if policy != without
    ]


_KEY = ["workload", "load", "policy"]


def results(groups: dict[tuple[str, float], Group]) -> str:
    """The table of results."""

    def row(runs: Runs, _: Group) -> list[str]:
        return [
            f"{sum(out.metrics.requests for out in runs.outcomes):,}",
            _with(runs.estimate("ttft_mean_s"), _ms),
            _with(runs.estimate("ttft_p95_s"), _ms),
            _with(runs.estimate("tbt_p99_s"), _ms),
            _with(runs.estimate("tbt_max_p95_s"), _ms),
            _with(runs.estimate("slo_attainment"), _percent),
            f"{runs.mean('goodput_rps_per_gpu'):.2f}",
        ]

    header = [
        *_KEY,
        "requests",
        "TTFT mean (ms)",
        "TTFT P95 (ms)",
        "TBT P99 (ms)",
        "longest gap P95 (ms)",
        "SLO attainment (%)",
        "goodput (req/s/GPU)",
    ]
    return table(header, _rows(groups, row))


def differences(groups: dict[tuple[str, float], Group], against: str) -> str:
    """The table of paired differences from one policy; "" where it was run alone."""

    def row(runs: Runs, group: Group) -> list[str]:
        base = group[against]
        tail, met = runs.difference("ttft_p95_s", base), runs.difference("slo_attainment", base)
        return [
            _with(runs.difference("ttft_mean_s", base), _signed(_ms)),
            _with(tail, _signed(_ms)),
            _with(Interval(*(100 * (ratio - 1) for ratio in runs.ttft_p95_ratio(base))), "{:+.1f}".format),
            _verdict(tail, less_is_better=True),
            _with(met, _signed(_percent)),
            _verdict(met, less_is_better=False),
        ]

    header = [
        *_KEY,
        "TTFT mean (ms)",
        "TTFT P95 (ms)",
        "TTFT P95 (%)",
        "TTFT P95 is",
        "SLO attainment (points)",
        "attainment is",
    ]
    rows = _rows(groups, row, without=against)
    return table(header, rows) if rows else ""


def breakdown(groups: dict[tuple[str, float], Group]) -> str:
    """The table of the parts of TTFT around P95."""

    def row(runs: Runs, _: Group) -> list[str]:
        parts_s = runs.parts_s
        return [_ms(parts_s.sum()), *(_percent(share) for share in parts_s / parts_s.sum())]

    header = [*_KEY, "TTFT (ms)", "queue (%)", "execution (%)", "transfer (%)", "decode wait (%)"]
    return table(header, _rows(groups, row))


def deflection(groups: dict[tuple[str, float], Group]) -> str:
    """The table of what was deflected and what it did to the decodes."""

    def row(runs: Runs, _: Group) -> list[str]:
        steps = sum(out.metrics.chunk_steps for out in runs.outcomes)
        over = sum(out.metrics.chunk_steps * out.metrics.chunk_steps_over_slo_share for out in runs.outcomes)
        return [
            _percent(runs.mean("deflected_share")),
            *("none" if isnan(share) else _percent(share) for share in runs.deflected_by_prompt()),
            f"{steps:,}",
            f"{100 * over / steps:.3f}" if steps else "none",
            f"{runs.mean('kv_bytes_moved') / 1e9:,.1f}",
        ]

    edges = [0, *PROMPT_BUCKETS]
    buckets = [f"{low + 1}-{high} (%)" for low, high in pairwise(edges)]
    header = [
        *_KEY,
        "deflected (%)",
        *buckets,
        f"over {edges[-1]} (%)",
        "chunk steps",
        "of them over the TBT SLO (%)",
        "KV moved (GB)",
    ]
    return table(header, _rows(groups, row))


def upkeep(groups: dict[tuple[str, float], Group]) -> str:
    """The table of what says whether a run is in order, and what its decisions cost."""

    def row(runs: Runs, _: Group) -> list[str]:
        return [
            f"{sum(out.metrics.censored for out in runs.outcomes):,}",
            _percent(1 - runs.mean("finished_share")),
            f"{runs.mean('preemptions'):,.1f}",
            _percent(runs.mean("prefill_busy_share")),
            _percent(runs.mean("decode_busy_share")),
            f"{runs.mean('decision_us_p50'):.1f}",
            f"{runs.mean('decision_us_p99'):.1f}",
        ]

    header = [
        *_KEY,
        "without first token",
        "unfinished (%)",
        "preemptions",
        "prefill nodes busy (%)",
        "decode nodes busy (%)",
        "decision P50 (us)",
        "decision P99 (us)",
    ]
    return table(header, _rows(groups, row))


def over_all(groups: dict[tuple[str, float], Group]) -> str:
    """The table over all workloads and loads; "" where there are not several of them with several seeds."""
    first = next(iter(groups.values()))
    base = base_of(first)
    seeds = min(len(runs.outcomes) for group in groups.values() for runs in group.values())
    if len(groups) < 2 or seeds < 2:
        return ""

    def scores(policy: str, name: str) -> statistics.Floats:
        return np.stack([group[policy].column(name) for group in groups.values()], axis=1)

    rows = []
    for policy in first:
        if policy == base:
            continue
        tail, base_tail = scores(policy, "ttft_p95_s"), scores(base, "ttft_p95_s")
        points = 100 * (scores(policy, "slo_attainment") - scores(base, "slo_attainment"))
        by_cell = (tail / base_tail).mean(axis=0)
        rows.append(
            [
                f"`{policies.label(policy)}`",
                _with(statistics.interquartile_mean(tail / base_tail), "{:.3f}".format),
                f"{np.median(by_cell):.3f}",
                f"{by_cell.max():.3f}",
                _with(statistics.probability_below(tail, base_tail), "{:.2f}".format),
                _with(statistics.interquartile_mean(points), "{:+.2f}".format),
                f"{points.mean(axis=0).min():+.2f}",
            ]
        )
    header = [
        "policy",
        f"TTFT P95 / {base}'s, interquartile mean",
        "median cell",
        "worst cell",
        "probability that it is lower",
        "SLO attainment, points, interquartile mean",
        "worst cell (points)",
    ]
    return table(header, rows) if rows else ""


def summary(title: str, about: Sequence[str], groups: dict[tuple[str, float], Group], bases: Sequence[str] = ()) -> str:
    """The text of summary.md.

    Args:
        title: its heading.
        about: what was run, a line each.
        groups: results, see `grouped`.
        bases: policies that the others are compared with; none: `base_of`.
    """
    base = base_of(next(iter(groups.values())))
    one_set = any(runs.same_requests for group in groups.values() for runs in group.values())
    how = (
        "the requests of the run, drawn again in twenty blocks of consecutive arrivals, in pairs between "
        "policies; it says nothing about other days of the trace"
        if one_set
        else "seeds, in pairs between policies; a number is the mean over seeds"
    )
    sources = [
        f"- {workload}, load {load:g}: {next(iter(group.values())).outcomes[0].label}"
        for (workload, load), group in groups.items()
    ]
    parts_s = {key: group[base].parts_s for key, group in groups.items()}
    shares = [float(parts[1] / parts.sum()) for parts in parts_s.values()]
    span = _percent(shares[0]) if len(shares) == 1 else f"{_percent(min(shares))} to {_percent(max(shares))}"
    sections = [
        (f"# {title}", "\n".join(f"- {line}" for line in about)),
        ("## Requests", "\n".join(sources) + ("" if one_set else "\n\nLabels are those of the first seed.")),
        (
            "## Results",
            f"[95 % intervals] are bootstraps over {how}. Attainment counts requests that arrived in the measured "
            "window, met their TTFT SLO, finished, and had no gap above their TBT SLO.\n\n" + results(groups),
        ),
        *(
            (
                f"## Against `{policies.label(against)}`, paired on the same requests",
                "Better or worse only where the 95 % interval leaves 0 out.\n\n" + differences(groups, against),
            )
            for against in bases or [base]
        ),
        (
            "## TTFT around P95",
            f"Means over the requests between P94 and P96. Prefill execution is {span} % of `{base}`'s.\n\n"
            + breakdown(groups),
        ),
        (
            "## Deflection",
            "Shares by prompt tokens. A chunk step carries a deflected chunk beside at least one decode; it is over "
            "where it lasts longer than the strictest TBT SLO in its batch.\n\n" + deflection(groups),
        ),
        ("## Upkeep", upkeep(groups)),
        ("## Over all workloads and loads", over_all(groups)),
    ]
    # A section without a table has nothing to say.
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections if body and not body.endswith("\n\n")) + "\n"
