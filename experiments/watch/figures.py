"""Pictures of watched runs: what happened on each node over time, and how soon alarms fired."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from envs.cluster import Samples
from experiments.drawing import plain, save
from experiments.watch.alarms import END_TO_END, QUEUE_TREND, QUEUE_WAIT, TTFT
from experiments.watch.early_warning import WINDOW_S, Break

Floats = NDArray[np.float64]

_ROLES = (("prefill", "Blues", (0.95, 0.5)), ("decode", "Oranges", (0.8, 0.45)))
_NAMED_NODES = 8  # more are told apart by role only
_BINS = 150
_BROKEN = "#CC79A7"
_LOOKS = {
    QUEUE_WAIT: ("#009E73", "-", "v"),
    QUEUE_TREND: ("#56B4E9", "--", "^"),
    TTFT: ("#000000", "-.", "s"),
    END_TO_END: ("#D55E00", "-", "o"),
}
_BEFORE_S, _AFTER_S, _FAR_S = 15.0, 45.0, 1e6


class Timeline(NamedTuple):
    """What a node timeline shows.

    Attributes:
        samples: of the run.
        time_s: samples of the running P95, seconds.
        ttft_p95: running P95 of TTFT / SLO at each.
        breaks: of TTFT.
        fired_s: when alarms fired, by name.
    """

    samples: Samples
    time_s: Floats
    ttft_p95: Floats
    breaks: Sequence[Break]
    fired_s: Mapping[str, Sequence[float]]


def _colours(samples: Samples) -> list[tuple[float, float, float, float]]:
    """A colour for each node: prefill nodes in blues, decode nodes in oranges."""
    prefill = samples.prefill_nodes
    counts = (prefill, samples.busy_s.shape[1] - prefill)
    return [
        matplotlib.colormaps[cmap](shade)
        for (_, cmap, (dark, light)), count in zip(_ROLES, counts, strict=True)
        for shade in np.linspace(dark, light if count > 1 else dark, count)
    ]


def thinned(time_s: Floats, values: Floats, bins: int = _BINS) -> tuple[Floats, Floats]:
    """Means over equal stretches of samples, at most `bins` of them: a picture has no room for more.

    Args:
        time_s: shape (n,).
        values: shape (n, nodes); nan where there is none, and in the mean of a stretch that has none.
        bins: stretches, at most.

    Returns:
        The time in the middle of each, and its means.
    """
    size = -(-len(time_s) // bins)
    starts = np.arange(0, len(time_s), size)
    there = ~np.isnan(values)
    counts = np.add.reduceat(there.astype(float), starts)
    sums = np.add.reduceat(np.where(there, values, 0.0), starts)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    middle_s = np.add.reduceat(time_s, starts) / np.diff(starts, append=len(time_s))
    return middle_s, means


def node_timeline(shown: Timeline, title: str, path: Path) -> None:
    """One run over time: running P95 TTFT and alarms, then queues, utilisation, KV, links and decode slack by node.

    Args:
        shown: the run.
        title: what was run.
        path: the PNG file to write.
    """
    samples = shown.samples
    by_node = (
        ("prefill queue\n(1,000 tokens)", samples.queued_prompt_tokens / 1e3, 0.0),
        ("busy (%)", 100 * samples.busy_share, 0.0),
        ("KV in use (%)", 100 * samples.kv_share, 0.0),
        ("KV to send\n(GB)", samples.sending_bytes / 1e9, 0.0),
        ("decode slack\n(% of TBT SLO)", 100 * samples.decode_slack, None),
    )
    figure = Figure(figsize=(9.0, 9.6), layout="constrained")
    shading = f"\nshaded from where P95 TTFT breaks its SLO until {WINDOW_S:g} s after it keeps it again"
    figure.suptitle(title + (shading if shown.breaks else ""), fontsize=11)
    panels = figure.subplots(1 + len(by_node), 1, sharex=True)
    for axes in panels:
        plain(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        for broken in shown.breaks:
            axes.axvspan(*broken, color=_BROKEN, alpha=0.13, linewidth=0)
    _alarms(panels[0], shown)
    colours = _colours(samples)
    nodes = len(colours)
    for axes, (label, values, bottom) in zip(panels[1:], by_node, strict=True):
        time_s, means = thinned(samples.time_s, values)
        for node, colour in enumerate(colours):
            role = _ROLES[node >= samples.prefill_nodes][0]
            first_of_role = node in (0, samples.prefill_nodes)
            name = f"{role} node {node}" if nodes <= _NAMED_NODES else f"{role} nodes" if first_of_role else None
            axes.plot(time_s, means[:, node], color=colour, linewidth=1.1, label=name)
        axes.set_ylabel(label, fontsize=9)
        axes.set_ylim(bottom=bottom)
    panels[2].set_yticks([0, 50, 100])
    panels[2].set_ylim(0, 108)
    panels[-1].set_xlim(0.0, samples.time_s[-1])
    panels[-1].set_xlabel(
        f"time (s); values of nodes are means over {time_s[1] - time_s[0] if len(time_s) > 1 else 0:.2g} s"
    )
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def _alarms(axes: Axes, shown: Timeline) -> None:
    """The running P95 against its SLO, shaded where it is broken, and above it when alarms fired."""
    axes.plot(shown.time_s, shown.ttft_p95, color="black", linewidth=1.2)
    axes.axhline(1.0, color="0.3", linewidth=0.8, linestyle=(0, (4, 3)))
    highest = np.nanmax(shown.ttft_p95) if not np.isnan(shown.ttft_p95).all() else 0.0
    top = max(1.2, 1.1 * float(highest))
    axes.set_ylim(0.0, top * (1.0 + 0.14 * len(shown.fired_s)))
    for rank, (alarm, fired_s) in enumerate(shown.fired_s.items()):
        height = top * (1.07 + 0.14 * rank)
        colour, _, marker = _LOOKS[alarm]
        axes.plot(fired_s, [height] * len(fired_s), marker, color=colour, markersize=5, label=f"{alarm} alarm fires")
    axes.set_ylabel("P95 TTFT / SLO", fontsize=9)
    if shown.fired_s:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, frameon=False, fontsize=8, borderaxespad=0.1,
            handletextpad=0.2,
        )  # fmt: skip


def warned(panels: Mapping[str, Mapping[str, Sequence[float]]], title: str, path: Path) -> None:
    """Share of the breaks on which an alarm has fired, by time since the break: a panel a setting, a line an alarm.

    Args:
        panels: leads on every break, seconds, by alarm, by setting; those missed are minus infinity.
        title: what was run.
        path: the PNG file to write.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.6 + 4.4 * columns, 1.5 + 2.5 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (setting, leads) in zip(grid, panels.items(), strict=False):
        plain(axes)
        count = 0
        for alarm, leads_s in leads.items():
            count = len(leads_s)
            if not count:
                continue
            after_s = np.sort([-lead_s for lead_s in leads_s if lead_s > -inf])
            fired = np.arange(len(after_s) + 1)
            colour, dashes, _ = _LOOKS[alarm]
            axes.step(
                [-_FAR_S, *after_s, _FAR_S],
                100 * np.append(fired, len(after_s)) / count,
                where="post",
                color=colour,
                linestyle=dashes,
                linewidth=1.7,
                label=alarm,
            )
        axes.axvline(0.0, color=_BROKEN, linewidth=1.4)
        axes.set_title(f"{setting}: {count} breaks" if count != 1 else f"{setting}: 1 break", loc="left", fontsize=9)
    grid[0].set_xlim(-_BEFORE_S, _AFTER_S)
    grid[0].set_ylim(0, 102)
    grid[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}" if value else "0"))
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("time since P95 TTFT broke its SLO (s)", fontsize=9)
        axes.tick_params(labelbottom=True)
    for axes in grid[::columns]:
        axes.set_ylabel("breaks with the alarm (%)", fontsize=9)
    with_curves = max(grid, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    handles, labels = with_curves.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)
