"""The report of a comparison: the result first, then an overview, then each workload in detail."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

import numpy as np

from experiments.analysis.comparison import Groups, Runs
from experiments.analysis.csv_files import CELL_COLUMNS, cell, write_csv, write_requests
from experiments.analysis.metrics import METRIC
from experiments.analysis.outcome import Outcome
from experiments.reports import comparison_tables as tables
from experiments.reports import formatting as show
from experiments.reports import ranking_tables as ranking
from experiments.reports.columns import bullets, code, plain
from experiments.reports.document import Part, Picture, Section, for_console, write_report
from experiments.reports.figures import comparison_figures, request_figures

TIMELINE_S = 15.0


def write_comparison(
    outcomes: Sequence[Outcome],
    title: str,
    about: Sequence[str],
    ttft_slo_s: Mapping[str, float],
    load_is: str,
    folder: Path,
    *,
    made_by: str,
    cells_name: str = "cells.csv",
    bases: Sequence[str] = (),
    first: Sequence[Section] = (),
) -> str:
    """Write `cells_name`, requests.csv.gz, figures/, summary.md and report.html into `folder`.

    Args:
        outcomes: all runs.
        title: heading of the summary.
        about: how it was run, one line of Markdown each.
        ttft_slo_s: drawn in the figures; of each workload that has one TTFT SLO for all requests.
        load_is: what a load is, for an axis.
        folder: made if it is missing.
        made_by: the foot of the summary, see `document.made_by`.
        cells_name: name of the file with one row per run.
        bases: policies that the others are compared with; none: static, or the first.
        first: sections before all others.

    Returns:
        The result and the main tables, to print.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / cells_name, CELL_COLUMNS, map(cell, outcomes))
    write_requests(outcomes, folder / "requests.csv.gz")
    groups = Groups.of(outcomes)
    result = ranking.findings(groups)
    matrices = {metric: ranking.matrix(groups, metric) for metric in ranking.CRITERIA}
    size = [
        show.counted(len(groups.policies), "policy", "policies"),
        show.counted(len(groups.workloads), "workload"),
        show.counted(len({load for _, load in groups}), "load"),
        show.counted(groups.seeds, "seed"),
    ]
    sections: list[Section] = [
        ("", [f"{', '.join(size)}."]),
        *first,
        ("## Result", [result]),
        ("## Overview", _overview(groups, matrices, load_is)),
        ("## How to read it", [bullets([*about, *_reading(groups)])]),
    ]
    highlighted = groups.highlighted()
    for workload in groups.workloads:
        of_workload = groups.of_workload(workload)
        pictures = _pictures(of_workload, highlighted, ttft_slo_s.get(workload), load_is)
        sections += [(f"## {plain(workload)}", pictures), *_detail(of_workload, bases or [groups.base])]
    write_report(title, [*sections, ("---\n\n## How this was made", [made_by])], folder)
    return for_console(
        result,
        *(f"{METRIC[metric].title}:\n{matrix}" for metric, matrix in matrices.items()),
        *(f"against {base}:\n{tables.per_policy(groups, tables.DIFFERENCES, base)}" for base in bases),
        f"Steps over the TBT SLO. {tables.CHUNK_STEPS_ARE}\n{tables.per_policy(groups, tables.CHUNK_STEPS)}",
        f"Percentiles, means over seeds:\n{tables.per_policy(groups.shown, tables.PERCENTILES)}",
    )


def _reading(groups: Groups) -> list[str]:
    one_set = any(runs.same_requests for group in groups.values() for runs in group.values())
    drawn = (
        "the requests of the run, in twenty blocks of consecutive arrivals, in pairs between policies; they say "
        "nothing about other days of a trace"
        if one_set
        else "seeds, in pairs between policies; a number is the mean over seeds"
    )
    return [
        f"[95 % intervals] are bootstraps over {drawn}; for latencies and ratios, on the logarithmic scale. With fewer "
        "than five seeds no tie is claimed.",
        "Better, worse and tied go by the interval that is shown. The best of a cell is compared with all others at "
        "once by simultaneous intervals (max-T bootstrap; Bonferroni's with fewer than ten seeds): the chance of "
        "wrongly calling any policy of a cell worse than the best is about 5 %. It is picked on the requests that it "
        "is measured on, which flatters it a little.",
        "Attainment counts requests that arrived in the measured window, met their TTFT SLO, finished, and had no gap "
        "above their TBT SLO.",
        "A clairvoyant policy knows what no router can, such as output lengths: a bound, never called best. A learned "
        "policy was trained.",
    ]


def _overview(groups: Groups, matrices: Mapping[str, str], load_is: str) -> list[Part]:
    columns = "at each load" if len(groups.workloads) == 1 else "at the highest load not above 1 (else the lowest)"
    reading = f"By policy, {columns}; **bold**: best, or tied with the best. Rows in order of P95 TTFT."
    over_all = "A cell is a workload at a load. Interquartile mean: of the middle half of all cells and seeds."
    titled = [(show.heading(METRIC[one]), reading, matrix) for one, matrix in matrices.items()]
    titled += [
        ("The best by workload and load", "", ranking.best(groups)),
        ("Against the virtual best of the rules", ranking.VIRTUAL_BEST, ranking.over_virtual_best(groups)),
        ("Over all workloads and loads", over_all, ranking.over_all(groups)),
    ]
    texts = ["\n\n".join(filter(None, (f"### {head}", text, table))) for head, text, table in titled if table]
    if len(groups.policies) < 2 or len(groups) < 2:
        return [*texts]
    caption = (
        f"Policies (rows, in order of P95 TTFT) by workload and {plain(load_is)} (columns). Above, P95 TTFT against "
        f"that of {code(groups.base)} on the same requests, blue if lower, in brackets if not significant; colours end "
        f"at four times. Below, the share of requests that met both SLOs. Means of {_size(groups)}."
    )
    alt = "P95 TTFT and SLO attainment by policy, workload and load"
    return [Picture("overview", comparison_figures.heat_map(groups), alt, caption), *texts]


def _detail(groups: Groups, bases: Sequence[str]) -> list[Section]:
    """The sections of one workload."""
    shares = [float(parts[1] / parts.sum()) for parts in (group[groups.base].parts_s for group in groups.values())]
    span = " to ".join(show.percent(share) for share in dict.fromkeys((min(shares), max(shares))))
    parts = f"Means over requests from P94 to P96. Prefill execution is {span} % of that of {code(groups.base)}."
    firsts = [(load, next(iter(group.values()))) for (_, load), group in groups.items()]
    labels = [f"load {load:g}: {plain(runs.outcomes[0].label)}; {_rates(runs)}" for load, runs in firsts]
    sections: dict[str, list[Part]] = {
        "requests, of the first seed": [bullets(labels)],
        "results": [tables.per_policy(groups, tables.RESULTS)],
        **{
            f"against {code(base)}, paired on the same requests": [tables.per_policy(groups, tables.DIFFERENCES, base)]
            for base in bases
        },
        "percentiles, means over seeds": [tables.per_policy(groups, tables.PERCENTILES)],
        "TTFT around P95": [parts, tables.per_policy(groups, tables.BREAKDOWN)],
        "deflection": ["Shares by prompt tokens.", tables.per_policy(groups, tables.DEFLECTION)],
        "steps over the TBT SLO": [tables.CHUNK_STEPS_ARE, tables.per_policy(groups, tables.CHUNK_STEPS)],
        "run health": [tables.per_policy(groups, tables.RUN_HEALTH)],
    }
    return [(f"### {plain(groups.workloads[0])}: {head}", parts) for head, parts in sections.items()]


def _pictures(groups: Groups, coloured: Sequence[str], ttft_slo_s: float | None, load_is: str) -> list[Part]:
    """The figures of one workload: by load, at its shown load, and of the first seed's runs there."""
    (workload,) = groups.workloads
    load = groups.shown_load(workload)
    group = groups[workload, load]
    few = len(coloured) < len(group)
    greys = f"; the other {len(group) - len(coloured)} policies are grey" if few else ""
    lines = "Dotted, P95." if ttft_slo_s is None else f"Dashed, the SLO of {ttft_slo_s:g} s; dotted, P95."
    at = f"{plain(workload)} at load {load:g}"
    sized = f"{at}, {_size(Groups({(workload, load): group}))}"
    title = f"{workload}, load {load:g} ({_rates(next(iter(group.values())))})"

    first = [group[policy].outcomes[0] for policy in coloured]
    records = {show.label(outcome.policy): outcome.requests[0] for outcome in first}
    these = next(iter(records.values()))
    start_s = request_figures.busiest_s(these, TIMELINE_S)
    rates = _rate(first[0].nominal_rps, first[0].rate_rps)
    of_run = f"{workload}, load {load:g}, seed {first[0].seed} ({rates})"
    alone = f"{at}, seed {first[0].seed} alone, n = {len(these):,} requests"
    alone += f"; {len(coloured)} of {len(group)} policies" if few else ""
    drawn = {
        "ttft_cdf": (
            comparison_figures.ttft_distribution(group, coloured, ttft_slo_s, title),
            "distribution of TTFT by policy",
            "Share of requests (up) whose first token came within a time (right, logarithmic): further left is better. "
            f"{lines} {sized}{greys}.",
        ),
        "slo_attainment": (
            comparison_figures.attainment_by_load(groups, coloured, load_is, f"{workload}, 95 % intervals"),
            "SLO attainment by load",
            "Share of requests that met both SLOs (up) by load (right), with 95 % intervals. Points of one load stand "
            f"side by side. {plain(workload)}, {_size(groups)}{greys}.",
        ),
        "ttft_breakdown": (
            comparison_figures.ttft_breakdown(group, title),
            "parts of the TTFT around P95",
            "Parts of the TTFT around P95: means over the requests from P94 to P96, in milliseconds (left) and as "
            f"shares of it (right), shortest first. {sized}.",
        ),
        "queue_depth": (
            request_figures.queue_depth(records, these["arrival_s"][-1], of_run),
            "prompts that wait for their prefill over time",
            f"Prompts whose prefill has not started (up, logarithmic above 10) over time (right). {alone}.",
        ),
        "node_timeline": (
            request_figures.prefill_timeline(records, start_s, start_s + TIMELINE_S, of_run),
            "where prompts are prefilled in the busiest seconds",
            f"The {TIMELINE_S:g} s in which most prompt tokens arrive: each bar is a prompt from the start to the end "
            f"of its prefill (right), on its node (rows), orange if that node decodes it too. {alone}.",
        ),
    }
    if len(groups) < 2:
        del drawn["slo_attainment"]
    return [
        Picture(f"{name}-{workload}", figure, f"{alt}, {workload}", caption)
        for name, (figure, alt, caption) in drawn.items()
    ]


def _size(groups: Groups) -> str:
    """How many requests a policy was measured on."""
    runs = [next(iter(group.values())) for group in groups.values()]
    requests = sum(int(one.total("requests")) for one in runs)
    return f"n = {requests:,} measured requests per policy ({show.counted(len(runs[0].outcomes), 'seed')})"


def _rates(runs: Runs) -> str:
    """Nominal rate, and the mean over seeds of the rate at which requests really arrived."""
    return _rate(runs.outcomes[0].nominal_rps, float(np.mean([outcome.rate_rps for outcome in runs.outcomes])))


def _rate(nominal_rps: float, realised_rps: float) -> str:
    realised = f"{realised_rps:.1f} requests/s"
    return realised if isnan(nominal_rps) else f"nominal {nominal_rps:.1f}, realised {realised}"
