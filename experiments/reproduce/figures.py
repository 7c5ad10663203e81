"""The pictures of `experiments.reproduce`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.drawing import COLOURS, plain, save
from experiments.metrics import PARTS
from experiments.statistics import Floats, Interval

Curve = Sequence[tuple[float, Interval]]
"""(x, value) in order of x."""

_MARKERS = "osD^vXP"
_PART_COLOURS = dict(zip(PARTS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))
_PART_LABELS = dict(zip(PARTS, ("prefill queue", "prefill execution", "KV transfer", "decode wait"), strict=True))


def _draw(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Lines with 95 % intervals as bands; a name keeps its colour."""
    for rank, (name, curve) in enumerate(curves.items()):
        x = [at for at, _ in curve]
        value, low, high = np.array([interval for _, interval in curve]).T
        colour = COLOURS[rank % len(COLOURS)]
        marker = _MARKERS[rank % len(_MARKERS)]
        axes.plot(x, value, label=name, color=colour, marker=marker, markersize=4, linewidth=1.6)
        axes.fill_between(x, np.maximum(low, 0), high, color=colour, alpha=0.15, lw=0)


def tails_by_load(panels: Mapping[str, Mapping[str, Curve]], title: str, path: Path) -> None:
    """P95 TTFT by load, a panel a machine and a line a rule.

    Args:
        panels: curves of seconds by rule, by machine.
        title: what was run.
        path: the PNG file to write.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(6.0, 4.6 * columns), 1.0 + 2.5 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    least_s: list[float] = []
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        _draw(axes, curves)
        axes.set_title(name, fontsize=9)
        axes.set_yscale("log")
        least_s.append(min(interval.value for curve in curves.values() for _, interval in curve))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        plain(axes)
    grid[0, 0].set_ylim(bottom=min(least_s) / 2)  # bands may reach zero
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("load (multiple of the knee of static)", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("P95 TTFT (s)", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    save(figure, path)


def shares_by_load(curves: Mapping[str, Curve], band: tuple[float, float], title: str, path: Path) -> None:
    """A share of P95 TTFT by load, a line a machine, and the band that is claimed for it.

    Args:
        curves: shares in [0, 1] by machine.
        band: the claimed share.
        title: what was run.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhspan(100 * band[0], 100 * band[1], color="0.88", zorder=0)
    axes.annotate(
        f"claimed: {100 * band[0]:.0f} to {100 * band[1]:.0f} %",
        (0.99, 100 * band[1]),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="top",
        fontsize=9,
        color="0.35",
    )
    in_percent = {
        name: [(load, Interval(*(100 * value for value in share))) for load, share in curve]
        for name, curve in curves.items()
    }
    _draw(axes, in_percent)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("load (multiple of the knee of static)")
    axes.set_ylabel("prefill execution in P95 TTFT (%)")
    axes.set_ylim(0, 100)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def breakdown(parts_s: Mapping[str, Mapping[str, Floats]], title: str, path: Path) -> None:
    """Stacked shares of the TTFT around P95, a panel a machine and a bar a workload.

    Args:
        parts_s: mean seconds of queue, execution, transfer and decode wait, shape (4,), by workload, by machine.
        title: what was run.
        path: the PNG file to write.
    """
    columns = min(2, len(parts_s))
    rows = -(-len(parts_s) // columns)
    bars = max(len(of_machine) for of_machine in parts_s.values())
    figure = Figure(figsize=(max(7.5, 5.2 * columns), 1.2 + rows * (0.7 + 0.27 * bars)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, (name, of_machine) in zip(grid.flat, parts_s.items(), strict=False):
        table = np.array(list(of_machine.values()))
        total_s = table.sum(axis=1)
        percent = 100 * table / total_s[:, None]
        names = [f"{workload} ({1e3 * seconds:,.0f} ms)" for workload, seconds in zip(of_machine, total_s, strict=True)]
        for part, key in enumerate(PARTS):
            left = percent[:, :part].sum(axis=1)
            look = {"color": _PART_COLOURS[key], "label": _PART_LABELS[key], "height": 0.7}
            bar = axes.barh(names, percent[:, part], left=left, **look)
            text = [f"{share:.0f}" if share >= 6 else "" for share in percent[:, part]]
            axes.bar_label(bar, text, label_type="center", color="white", fontsize=8)
        axes.set_title(name, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(parts_s) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("share of the TTFT, mean from P94 to P96 (%)", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False, fontsize=9)
    save(figure, path)


def added_step_time(
    tokens: Sequence[int],
    curves_s: Mapping[str, Sequence[float]],
    claimed: Sequence[tuple[str, float]],
    title: str,
    path: Path,
) -> None:
    """What a chunk adds to a decode step, by its tokens.

    Args:
        tokens: of the chunks.
        curves_s: seconds for each of them, by profile.
        claimed: what is said of it, and the seconds to draw it at.
        title: what was computed.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for rank, (name, curve) in enumerate(curves_s.items()):
        marker, colour = _MARKERS[rank % len(_MARKERS)], COLOURS[rank % len(COLOURS)]
        axes.plot(tokens, 1e3 * np.array(curve), marker=marker, color=colour, label=name)
    for text, seconds in claimed:
        axes.axhline(1e3 * seconds, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            text, (0.01, 1e3 * seconds), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color="0.3"
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("tokens of the chunk")
    axes.set_ylabel("added to the step (ms)")
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def ablation_bars(
    bars: Mapping[str, Sequence[tuple[str, Interval, Interval]]], base: tuple[float, float], title: str, path: Path
) -> None:
    """P95 TTFT and SLO attainment of each variant, knob by knob, with 95 % intervals; the default is dark.

    Args:
        bars: (value, P95 TTFT in seconds, attainment in [0, 1]) by knob.
        base: the same two of the base, drawn as lines.
        title: what was run.
        path: the PNG file to write.
    """
    rows = [(knob, *bar) for knob, several in bars.items() for bar in several]
    gaps = np.cumsum([i > 0 and rows[i][0] != rows[i - 1][0] for i in range(len(rows))])
    y = np.arange(len(rows)) + 0.8 * gaps
    figure = Figure(figsize=(9.6, 1.2 + 0.215 * (len(rows) + 0.8 * gaps[-1])), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2, sharey=True)
    colours = ["#0072B2" if "default" in value else "#8FBBDA" for _, value, _, _ in rows]
    for axes, column, scale, line in zip(panels, (2, 3), (1e3, 100.0), base, strict=True):
        value, low, high = scale * np.array([row[column] for row in rows], dtype=np.float64).T
        low = np.maximum(low, 0)  # Student's interval of a few seeds may leave what is possible
        error = np.nan_to_num(np.stack([value - low, high - value]))
        axes.barh(y, value, color=colours, height=0.8)
        axes.errorbar(value, y, xerr=error, fmt="none", ecolor="0.25", capsize=2, linewidth=0.9)
        axes.axvline(scale * line, color="#D55E00", linewidth=1.2, linestyle="--", label="static")
        plain(axes)
    panels[0].set_xlabel("P95 TTFT (ms)")
    panels[1].set_xlabel("SLO attainment (%)")
    panels[1].set_xlim(0, 100)
    panels[0].set_yticks(y, [f"{knob} = {value}" for knob, value, _, _ in rows], fontsize=8)
    panels[0].set_ylim(y[-1] + 0.7, y[0] - 0.7)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=9)
    save(figure, path)
