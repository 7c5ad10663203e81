"""Pictures of a comparison. `Figure` without pyplot: nothing global, and no display is ever asked for.

A policy keeps its colour and line style in every picture of a comparison (palette of Okabe and Ito, safe for
colour-blind readers). Of many policies a few are in colour, and the curves of the others are grey.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from experiments.drawing import COLOURS, plain, save
from experiments.metrics import PARTS, Records, rejected
from experiments.printed import label
from experiments.statistics import Interval

Floats = NDArray[np.float64]

_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^vXP"
_PART_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_PART_LABELS = ("prefill queue", "prefill execution", "KV transfer", "decode wait")
_QUEUE_SAMPLES = 800
_CURVE_POINTS = 1500
_OTHERS = "other policies"


class _Style(NamedTuple):
    colour: str
    dashes: str
    width: float
    marker: str
    zorder: float


def _styles(named: Sequence[str], coloured: Sequence[str] | None) -> dict[str, _Style]:
    """How each policy is drawn; `coloured` says which are in colour, and by its order in which; None: all."""
    chosen = list(named if coloured is None else coloured)
    styles = dict.fromkeys(named, _Style("0.78", "-", 1.0, "", 2.0))
    for rank, policy in enumerate(chosen):
        turn, colour = divmod(rank, len(COLOURS))
        dashes, marker = _DASHES[turn % len(_DASHES)], _MARKERS[rank % len(_MARKERS)]
        styles[policy] = _Style(COLOURS[colour], dashes, 1.9, marker, 3.0)
    return styles


def _curve(axes: Axes, policy: str, style: _Style) -> dict[str, object]:
    """Arguments of a line; of the grey ones only the first is in the legend."""
    grey = not style.marker
    text = _OTHERS if grey else label(policy)
    if grey and text in axes.get_legend_handles_labels()[1]:
        text = "_"
    return {
        "label": text,
        "color": style.colour,
        "linestyle": style.dashes,
        "linewidth": style.width,
        "zorder": style.zorder,
    }


def _axes(title: str, x: str, y: str, width: float = 7.2, height: float = 4.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    plain(axes)
    return figure, axes


def _is_others(entry: tuple[str, object]) -> bool:
    return entry[0] == _OTHERS


def _legend(figure: Figure) -> None:
    """Policies below the axes, where they cover no curve."""
    entries = dict(sorted(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True), key=_is_others))
    longest = max(map(len, entries))
    columns = 4 if longest < 20 else 3 if longest < 28 else 2
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def ttft_cdf(
    ttft_s: Mapping[str, Floats], slo_s: float | None, title: str, path: Path, coloured: Sequence[str] | None = None
) -> None:
    """Cumulative distribution of TTFT by policy.

    Args:
        ttft_s: seconds a request, by policy.
        slo_s: drawn as a vertical line; None: no line.
        title: what was run.
        path: the PNG file to write.
        coloured: policies in colour, always in this order; None: all.
    """
    styles = _styles(list(ttft_s), coloured)
    figure, axes = _axes(title, "time to first token (s, logarithmic)", "share of requests")
    axes.set_xscale("log")
    for policy, values in ttft_s.items():
        share = np.linspace(0.0, 1.0, min(len(values), _CURVE_POINTS))
        quantiles = np.quantile(values, share, method="inverted_cdf")
        axes.step(quantiles, share, where="post", **_curve(axes, policy, styles[policy]))  # type: ignore[arg-type]
    if slo_s is not None:
        axes.axvline(slo_s, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        at = (slo_s, 0.02)
        axes.annotate(f"SLO {slo_s:g} s", at, xytext=(4, 0), textcoords="offset points", color="0.3", fontsize=9)
    axes.axhline(0.95, color="0.4", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.annotate(
        "P95",
        (1, 0.95),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color="0.3",
        fontsize=9,
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(0, 1.01)
    _legend(figure)
    save(figure, path)


def ttft_breakdown(parts_s: Mapping[str, Floats], title: str, path: Path) -> None:
    """Stacked parts of the TTFT around P95, a bar a policy, shortest first: in milliseconds, and as shares of it.

    Args:
        parts_s: mean seconds of queue, execution, transfer and decode wait, shape (4,), by policy.
        title: what was run.
        path: the PNG file to write.
    """
    parts_s = dict(sorted(parts_s.items(), key=lambda item: float(item[1].sum())))
    figure = Figure(figsize=(9.2, 1.7 + (0.45 if len(parts_s) <= 8 else 0.33) * len(parts_s)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    absolute, relative = figure.subplots(1, 2, sharey=True)
    names = [label(policy) for policy in parts_s]
    table_ms = np.array(list(parts_s.values())) * 1e3
    total_ms = table_ms.sum(axis=1)
    percent = 100 * table_ms / total_ms[:, None]
    for part, (text, colour) in enumerate(zip(_PART_LABELS, _PART_COLOURS, strict=True)):
        for axes, values in ((absolute, table_ms), (relative, percent)):
            left = values[:, :part].sum(axis=1)
            bars = axes.barh(names, values[:, part], left=left, color=colour, label=text, height=0.66)
        # A share is written where its piece has room for it.
        shares = [f"{share:.0f}" if share >= 5 else "" for share in percent[:, part]]
        relative.bar_label(bars, shares, label_type="center", color="white", fontsize=9)
    for row, total in enumerate(total_ms):
        absolute.annotate(
            f"{total:,.0f}", (total, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
    absolute.set_xlim(0, total_ms.max() * 1.18)
    absolute.set_ylim(len(names) - 0.5, -0.5)
    absolute.xaxis.set_major_locator(MaxNLocator(5))
    absolute.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    absolute.set_xlabel("TTFT, mean from P94 to P96 (ms)")
    relative.set_xlim(0, 100)
    relative.set_xlabel("share of it (%)")
    for axes in (absolute, relative):
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = absolute.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False, fontsize=9)
    save(figure, path)


def attainment_by_load(
    curves: Mapping[str, Sequence[tuple[float, Interval]]],
    x: str,
    title: str,
    path: Path,
    coloured: Sequence[str] | None = None,
) -> None:
    """SLO attainment against load by policy, with 95 % intervals as bars.

    Args:
        curves: (load, attainment) in order of load, by policy.
        x: what a load is.
        title: what was run.
        path: the PNG file to write.
        coloured: policies in colour, always in this order; None: all.
    """
    styles = _styles(list(curves), coloured)
    figure, axes = _axes(title, x, "SLO attainment (%)")
    loads = np.array([load for load, _ in next(iter(curves.values()))])
    in_colour = [policy for policy, style in styles.items() if style.marker]
    for policy, curve in curves.items():
        style = styles[policy]
        value, low, high = 100 * np.array([interval for _, interval in curve]).T
        if not style.marker:
            axes.plot(loads, value, **_curve(axes, policy, style))  # type: ignore[arg-type]
            continue
        # Points at one load stand side by side, or their bars would hide each other.
        beside = loads + (in_colour.index(policy) - (len(in_colour) - 1) / 2) * 0.008 * np.ptp(loads)
        axes.plot(beside, value, marker=style.marker, markersize=5, **_curve(axes, policy, style))  # type: ignore[arg-type]
        error = np.nan_to_num(np.abs(np.stack([value - np.maximum(low, 0), np.minimum(high, 100) - value])))
        axes.errorbar(beside, value, error, fmt="none", ecolor=style.colour, capsize=2, linewidth=1.0, zorder=3)
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.set_ylim(top=101)
    _legend(figure)
    save(figure, path)


def queue_depth(runs: Mapping[str, Records], end_s: float, title: str, path: Path) -> None:
    """Requests that wait for their prefill to start over time, a panel a policy.

    Args:
        runs: the records of one run by policy.
        end_s: when to stop drawing, seconds.
        title: what was run.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(8.0, 1.4 + 1.15 * len(runs)), layout="constrained")
    figure.suptitle(f"{title}\nrequests waiting for prefill (logarithmic above 10)", fontsize=11)
    panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    time_s = np.linspace(0.0, end_s, _QUEUE_SAMPLES)
    for axes, (policy, records) in zip(panels, runs.items(), strict=True):
        deflected = records["deflected"]
        for waiting, colour, where in (
            (records[~deflected], COLOURS[0], "for a prefill node"),
            (records[deflected], COLOURS[4], "deflected: for the node that decodes it"),
        ):
            axes.fill_between(time_s, depth(waiting, time_s), step="post", color=colour, label=where, alpha=0.75, lw=0)
        axes.set_title(label(policy), loc="left", fontsize=9, pad=2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3, linewidth=0.6)
    # Linear up to ten, logarithmic above: a queue of three and one of a thousand are both to be seen.
    panels[0].set_yscale("symlog", linthresh=10)
    panels[0].set_ylim(bottom=0)
    panels[0].yaxis.set_major_locator(FixedLocator([0, 5, 10, 100, 1000, 10_000, 100_000]))
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panels[0].set_xlim(0, end_s)
    panels[-1].set_xlabel("time (s)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def depth(records: Records, time_s: Floats) -> NDArray[np.int64]:
    """How many of the requests wait for their prefill to start at each time, shape of `time_s`."""
    # nan sorts last: a prefill that never started never ends the wait. A rejected request does not wait.
    records = records[~rejected(records)]
    came = np.searchsorted(np.sort(records["arrival_s"]), time_s, side="right")
    began = np.searchsorted(np.sort(records["prefill_start_s"]), time_s, side="right")
    return came - began


def node_timeline(runs: Mapping[str, Records], start_s: float, end_s: float, title: str, path: Path) -> None:
    """Where prompts are prefilled over a short time: a panel a policy, a row a node, a bar a prompt.

    Args:
        runs: the records of one run by policy.
        start_s: when the picture begins, seconds.
        end_s: when it ends, seconds.
        title: what was run.
        path: the PNG file to write.
    """
    decoding = [set(records["decode_node"].tolist()) for records in runs.values()]
    nodes = int(max(records[name].max() for records in runs.values() for name in ("prefill_node", "decode_node"))) + 1
    figure = Figure(figsize=(8.0, 1.4 + (0.35 + 0.2 * nodes) * len(runs)), layout="constrained")
    figure.suptitle(f"{title}\nwhere prompts are prefilled, a bar a prompt, orange where deflected", fontsize=11)
    panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (policy, records) in zip(panels, runs.items(), strict=True):
        shown = records[(records["prefill_end_s"] >= start_s) & (records["prefill_start_s"] <= end_s)]
        for node in range(nodes):
            here = shown[shown["prefill_node"] == node]
            spans = np.stack([here["prefill_start_s"], here["prefill_end_s"] - here["prefill_start_s"]], axis=1)
            colours = np.where(here["deflected"], COLOURS[4], COLOURS[0]).tolist()
            # One collection a row: a patch a prompt takes seconds to draw.
            axes.broken_barh(spans.tolist(), (node - 0.4, 0.8), facecolors=colours, edgecolor="white", linewidth=0.3)
        axes.set_title(label(policy), loc="left", fontsize=9, pad=2)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    # A rule may decode anywhere; where every one of them does, no node has a role.
    always = set.intersection(*decoding)
    mixed = always.issuperset(range(nodes))
    roles = ["node" if mixed else "decode" if node in always else "prefill" for node in range(nodes)]
    panels[0].set_yticks(range(nodes), [f"{role} {node}" for node, role in enumerate(roles)])
    panels[0].set_ylim(nodes - 0.5, -0.5)
    panels[0].set_xlim(start_s, end_s)
    panels[-1].set_xlabel("time (s)")
    save(figure, path)
