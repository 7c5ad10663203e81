"""Figures of a comparison: a policy keeps its colour and line style; of many, a few are in colour, the others grey."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.comparison import Group, Groups, Runs
from experiments.reports.figures import style
from experiments.reports.formatting import label

_FOUR_TIMES = 2.0
"""The ratio at which colours end, as a power of two."""
_CURVE_POINTS = 1500
_NEAR: dict[str, Any] = {"textcoords": "offset points"}


def heat_map(groups: Groups) -> Figure:
    """P95 TTFT against the base's, and SLO attainment: one row per policy, one column per workload and load.

    Rows are in order of P95 TTFT. A change that is not significant is in brackets.
    """
    base, ranked = groups.base, groups.ranked
    named = [label(next(iter(groups.values()))[policy].policy) for policy in ranked]
    p95_s, met = (
        np.array([[group[policy].mean(metric) for group in groups.values()] for policy in ranked])
        for metric in ("ttft_p95_s", "slo_attainment")
    )
    changes = [[_change(group[policy], group[base]) for group in groups.values()] for policy in ranked]
    firsts = {workload: column for column, (workload, _) in reversed([*enumerate(groups)])}
    width, height = 2.6 + max(0.37 * len(groups), 3.4), 0.25 * len(ranked)
    figure = Figure(figsize=(width, 2 * height + 2.6), layout="constrained")
    shares = [[f"{100 * share:.0f}" for share in line] for line in met]
    to_base = f"P95 TTFT against {base} (%); in brackets: not significant"
    maps = [
        (to_base, np.log2(p95_s / p95_s[ranked.index(base)]), Normalize(-_FOUR_TIMES, _FOUR_TIMES), "RdBu_r", changes),
        ("SLO attainment (%)", met, Normalize(0, 1), "viridis", shares),
    ]
    for axes, (title, values, scale, colours, texts) in zip(figure.subplots(2, 1), maps, strict=True):
        style.heat_map(axes, values, scale, colours, texts, [first for first in firsts.values() if first])
        axes.set_title(title, fontsize=10, loc="left", pad=20)
        axes.set_yticks(range(len(ranked)), named, fontsize=8)
        axes.set_xticks(range(len(groups)), [f"{load:g}" for _, load in groups], fontsize=8)
        for workload, first in firsts.items():
            middle = first + (len(groups.of_workload(workload)) - 1) / 2
            place = {"xycoords": ("data", "axes fraction"), "xytext": (0, 4), "ha": "center", "fontsize": 8}
            axes.annotate(workload, (middle, 1), **place, **_NEAR)
    axes.set_xlabel("load", fontsize=9)
    return figure


def _change(runs: Runs, base: Runs) -> str:
    """A change of P95 TTFT in percent, a multiple if it is large; in brackets if it is not significant."""
    ratio = runs.mean("ttft_p95_s") / base.mean("ttft_p95_s")
    text = f"{100 * (ratio - 1):+.0f}" if ratio < 10 else f"x{ratio:.0f}"
    return text if runs is base or runs.ratio("ttft_p95_s", base).excludes(1.0) else f"({text})"


def ttft_distribution(group: Group, coloured: Sequence[str], slo_s: float | None, title: str) -> Figure:
    """Cumulative distribution of TTFT by policy, with a vertical line at `slo_s`."""
    styles = style.line_styles(list(group), coloured)
    figure, axes = style.axes_of(title, "time to first token (s, logarithmic)", "share of requests")
    axes.set_xscale("log")
    for policy, runs in group.items():
        values = np.concatenate([requests.ttft_s for requests in runs.requests])
        share = np.linspace(0.0, 1.0, min(len(values), _CURVE_POINTS))
        quantiles = np.quantile(values, share, method="inverted_cdf")
        text = label(runs.policy) if styles[policy].marker else style.OTHERS
        axes.step(quantiles, share, where="post", label=text, **styles[policy].line)
    grey: dict[str, Any] = {"color": "0.3", "fontsize": 9}
    if slo_s is not None:
        axes.axvline(slo_s, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(f"SLO {slo_s:g} s", (slo_s, 0.02), xytext=(4, 0), **grey, **_NEAR)
    axes.axhline(0.95, color="0.4", linewidth=0.8, linestyle=(0, (1, 3)))
    at_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (-4, -3), "ha": "right", "va": "top"}
    axes.annotate("P95", (1, 0.95), **at_right, **grey, **_NEAR)
    axes.xaxis.set_major_formatter(style.PLAIN_NUMBERS)
    axes.set_ylim(0, 1.01)
    style.legend_below(figure, axes)
    return figure


def ttft_breakdown(group: Group, title: str) -> Figure:
    """Stacked parts of the TTFT around P95, one bar per policy, shortest first: in milliseconds, and as shares."""
    ordered = sorted(group.values(), key=lambda runs: float(runs.parts_s.sum()))
    height = 1.7 + (0.45 if len(ordered) <= 8 else 0.33) * len(ordered)
    figure, (absolute, relative) = style.panels_of(1, 2, title, 9.2, height, sharey=True)
    names = [label(runs.policy) for runs in ordered]
    table_ms = np.array([runs.parts_s for runs in ordered]) * 1e3
    total_ms = table_ms.sum(axis=1)
    percent = 100 * table_ms / total_ms[:, None]
    for part, (text, colour) in enumerate(zip(style.PART_LABELS, style.PART_COLOURS, strict=True)):
        for axes, values in ((absolute, table_ms), (relative, percent)):
            left = values[:, :part].sum(axis=1)
            bars = axes.barh(names, values[:, part], left=left, color=colour, label=text, height=0.66)
        # A share is written where its piece has room for it.
        shares = [f"{share:.0f}" if share >= 5 else "" for share in percent[:, part]]
        relative.bar_label(bars, shares, label_type="center", color="white", fontsize=9)
    for row, total in enumerate(total_ms):
        absolute.annotate(f"{total:,.0f}", (total, row), xytext=(4, 0), va="center", fontsize=9, **_NEAR)
    absolute.set(
        xlabel="TTFT, mean from P94 to P96 (ms)", xlim=(0, total_ms.max() * 1.18), ylim=(len(names) - 0.5, -0.5)
    )
    absolute.xaxis.set_major_locator(MaxNLocator(5))
    absolute.xaxis.set_major_formatter(style.GROUPED_NUMBERS)
    relative.set(xlabel="share of it (%)", xlim=(0, 100))
    for axes in (absolute, relative):
        style.clean(axes, grid=False)
    style.legend_below(figure, absolute, len(style.PART_LABELS))
    return figure


def attainment_by_load(groups: Groups, coloured: Sequence[str], x: str, title: str) -> Figure:
    """SLO attainment of one workload against load (`x`: what that is), by policy, with 95 % intervals as bars."""
    figure, axes = style.axes_of(title, x, "SLO attainment (%)")
    loads = np.array([load for _, load in groups])
    for policy, drawn in style.line_styles(groups.policies, coloured).items():
        several = [group[policy] for group in groups.values()]
        value, low, high = 100 * np.array([runs.interval("slo_attainment") for runs in several]).T
        if not drawn.marker:
            axes.plot(loads, value, label=style.OTHERS, **drawn.line)
            continue
        # Points at one load stand side by side, or their bars would hide each other.
        shifted = loads + (coloured.index(policy) - (len(coloured) - 1) / 2) * 0.008 * np.ptp(loads)
        axes.plot(shifted, value, marker=drawn.marker, markersize=5, label=label(several[0].policy), **drawn.line)
        error = np.nan_to_num(np.abs(np.stack([value - np.maximum(low, 0), np.minimum(high, 100) - value])))
        axes.errorbar(shifted, value, error, fmt="none", ecolor=drawn.colour, capsize=2, linewidth=1.0, zorder=3)
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.set_ylim(top=101)
    style.legend_below(figure, axes)
    return figure
