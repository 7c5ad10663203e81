"""Figures of the comparison with the claims of arXiv 2607.02043."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.analysis.bootstrap import Interval
from experiments.analysis.comparison import BASE, Runs
from experiments.analysis.paper import paper_claims as paper
from experiments.analysis.paper.paper_evidence import BURSTY, KAIROS, TUNED, Evidence, Place, Setting
from experiments.reports.figures import style
from experiments.reports.figures.style import COLOURS, MARKERS, PLAIN_NUMBERS, axes_of, clean, grid_of, legend_below

_LOAD = "load (multiple of the knee of static)"
_VARIANT_COLOUR = "#8FBBDA"


def _line(rank: int) -> dict[str, Any]:
    return {"color": COLOURS[rank % len(COLOURS)], "marker": MARKERS[rank % len(MARKERS)]}


def _curves(axes: Axes, curves: Mapping[str, Sequence[tuple[float, Interval]]], scale: float = 1.0) -> None:
    """Lines of (load, value) with 95 % intervals as bands."""
    for rank, (name, curve) in enumerate(curves.items()):
        loads = [load for load, _ in curve]
        value, low, high = scale * np.array([interval for _, interval in curve]).T
        axes.plot(loads, value, label=name, markersize=4, linewidth=1.6, **_line(rank))
        axes.fill_between(loads, np.maximum(low, 0), high, color=COLOURS[rank % len(COLOURS)], alpha=0.15, lw=0)


def tail_parts(evidence: Evidence, places: Sequence[Place]) -> Figure:
    """Stacked parts of the TTFT of static around P95 as shares of it: one panel per machine, one bar per workload.

    The places are at one load, those of a machine next to each other.
    """
    panels = {machine: list(several) for machine, several in groupby(places, lambda place: place.setting.machine)}
    title = f"{BASE}, {places[0].setting.kind}, load {places[0].load:g}"
    figure, grid = grid_of(len(panels), title, 5.2, 0.7 + 0.27 * max(map(len, panels.values())), sharex=True)
    for axes, (machine, several) in zip(grid, panels.items(), strict=True):
        parts_s = np.array([evidence.groups[place][BASE].parts_s for place in several])
        total_s = parts_s.sum(axis=1)
        names = [f"{place.family} ({1e3 * of_it:,.0f} ms)" for place, of_it in zip(several, total_s, strict=True)]
        left = np.zeros(len(several))
        for text, colour, percent in zip(
            style.PART_LABELS, style.PART_COLOURS, (100 * parts_s / total_s[:, None]).T, strict=True
        ):
            drawn = axes.barh(names, percent, left=left, color=colour, label=text, height=0.7)
            shares = [f"{share:.0f}" if share >= 6 else "" for share in percent]
            axes.bar_label(drawn, shares, label_type="center", color="white", fontsize=8)
            left += percent
        axes.set_title(machine, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", labelsize=8)
        clean(axes, grid=False)
    for axes in grid[-2:]:
        axes.set_xlabel("share of the TTFT, mean from P94 to P96 (%)", fontsize=9)
    legend_below(figure, grid[0], len(style.PART_LABELS))
    return figure


def execution_by_load(evidence: Evidence) -> Figure:
    """Execution in the P95 TTFT of static by load, one line per machine, and the band that is claimed for it."""
    figure, axes = axes_of(f"{BASE}, {BURSTY}", _LOAD, "prefill execution in P95 TTFT (%)", height=4.6)
    low, high = (100 * share for share in paper.EXECUTION_SHARE)
    axes.axhspan(low, high, color="0.88", zorder=0)
    text, frame = f"claimed: {low:.0f} to {high:.0f} %", axes.get_yaxis_transform()
    axes.text(0.99, low, text, transform=frame, fontsize=9, color="0.35", ha="right", va="bottom")
    of_machine = {setting.machine: places for setting, places in evidence.swept.items()}
    share = {name: [(one.load, evidence.share(one, "exec")) for one in places] for name, places in of_machine.items()}
    _curves(axes, share, 100.0)
    axes.set_ylim(0, 100)
    legend_below(figure, axes, 2, 8)
    return figure


def tail_by_load(evidence: Evidence) -> Figure:
    """P95 TTFT by load, one panel per machine and one line per rule."""
    figure, grid = grid_of(len(evidence.swept), BURSTY, 4.6, 2.5, sharex=True, sharey=True)
    values_s: list[float] = []
    for axes, (setting, places) in zip(grid, evidence.swept.items(), strict=True):
        curves = {
            rule: [(place.load, evidence.groups[place][rule].interval("ttft_p95_s")) for place in places]
            for rule in (BASE, KAIROS, TUNED)
        }
        values_s += [interval.value for curve in curves.values() for _, interval in curve]
        _curves(axes, curves)
        axes.set_title(setting.machine, fontsize=9)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
        axes.yaxis.set_minor_formatter(NullFormatter())
        clean(axes)
    for axes in grid[-2:]:
        axes.set_xlabel(_LOAD, fontsize=9)
    for axes in grid[::2]:
        axes.set_ylabel("P95 TTFT (s)", fontsize=9)
    grid[0].set_ylim(min(values_s) / 2, 2 * max(values_s))  # intervals of few seeds are wide
    legend_below(figure, grid[0])
    return figure


def added_step_time(machines: Sequence[Setting]) -> Figure:
    """The time that a chunk adds to a decode step, by its tokens; one line per profile."""
    title = f"a prefill chunk next to {paper.DECODES}"
    figure, axes = axes_of(title, "tokens of the chunk", "added to the step (ms)", 6.8, 4.4)
    laws = {setting.profile: setting.config.profile.law for setting in machines}
    for rank, (name, law) in enumerate(laws.items()):
        axes.plot(paper.CHUNKS, [1e3 * paper.added_s(law, chunk) for chunk in paper.CHUNKS], label=name, **_line(rank))
    flat_ms, steep_ms = 1e3 * paper.FLAT_S, 1e3 * paper.STEEP_S
    claimed = {
        flat_ms: f"claimed: at most {flat_ms:g} ms up to {paper.FLAT_UP_TO}",
        steep_ms: f"claimed: over {steep_ms:g} ms at {paper.STEEP_AT}",
    }
    for level_ms, text in claimed.items():
        axes.axhline(level_ms, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0.01, level_ms, text, transform=axes.get_yaxis_transform(), va="bottom", fontsize=8, color="0.3")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
    legend_below(figure, axes, 2)
    return figure


def ablation(bars: Mapping[tuple[str, str], Runs], base: Runs, title: str) -> Figure:
    """P95 TTFT and SLO attainment by (knob, value), with 95 % intervals; the default is dark, and the base a line."""
    runs = list(bars.values())
    knobs = list(dict.fromkeys(knob for knob, _ in bars))
    y = np.arange(len(bars)) + 0.8 * np.array([knobs.index(knob) for knob, _ in bars])
    figure = Figure(figsize=(9.6, 1.2 + 0.215 * (y[-1] + 1)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2, sharey=True)
    colours = [COLOURS[0] if "default" in text else _VARIANT_COLOUR for _, text in bars]
    for axes, metric, scale in zip(panels, ("ttft_p95_s", "slo_attainment"), (1e3, 100.0), strict=True):
        value, low, high = scale * np.array([one.interval(metric) for one in runs]).T
        error = np.nan_to_num(np.stack([value - np.maximum(low, 0), high - value]))
        axes.barh(y, value, color=colours, height=0.8)
        axes.errorbar(value, y, xerr=error, fmt="none", ecolor="0.25", capsize=2, linewidth=0.9)
        axes.axvline(scale * base.mean(metric), color=COLOURS[1], linewidth=1.2, linestyle="--", label=BASE)
        clean(axes)
    panels[0].set_xlabel("P95 TTFT (ms)")
    longest_s = max(one.mean("ttft_p95_s") for one in [base, *runs])
    highest_s = [high for one in runs if (high := one.interval("ttft_p95_s").high) > longest_s]  # nan is not
    panels[0].set_xlim(0, 1.05e3 * min(max([longest_s, *highest_s]), 2.5 * longest_s))
    panels[1].set_xlabel("SLO attainment (%)")
    panels[1].set_xlim(0, 100)
    panels[0].set_yticks(y, [f"{knob} = {text}" for knob, text in bars], fontsize=8)
    panels[0].set_ylim(y[-1] + 0.7, y[0] - 0.7)
    legend_below(figure, panels[0])
    return figure
