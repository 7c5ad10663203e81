"""Figures of watched runs: each node over time, and when alarms fired around breaks of TTFT."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from envs.cluster import Samples
from experiments.analysis.alarms import END_TO_END, QUEUE_TREND, QUEUE_WAIT, TTFT, Signals
from experiments.analysis.bootstrap import Floats
from experiments.analysis.early_warning import WINDOW_S
from experiments.reports.figures.style import clean, grid_of, legend_below, panels_of
from experiments.reports.formatting import counted

_NAMED_NODES = 8  # of more nodes only the role is named
_BINS = 150
_BROKEN = "#CC79A7"
_STYLES = {
    QUEUE_WAIT: ("#009E73", "-", "v"),
    QUEUE_TREND: ("#56B4E9", "--", "^"),
    TTFT: ("#000000", "-.", "s"),
    END_TO_END: ("#D55E00", "-", "o"),
}
_BEFORE_S, _AFTER_S, _FAR_S = 15.0, 45.0, 1e6


def thinned(time_s: Floats, values: Floats, bins: int = _BINS) -> tuple[Floats, Floats]:
    """Samples (n,) and values (n, nodes) as the means of at most `bins` equal stretches; nan is a value missing."""
    starts = np.arange(0, len(time_s), -(-len(time_s) // bins))
    there = ~np.isnan(values)
    counts = np.add.reduceat(there.astype(float), starts)
    sums = np.add.reduceat(np.where(there, values, 0.0), starts)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return np.add.reduceat(time_s, starts) / np.diff(starts, append=len(time_s)), means


def node_timeline(samples: Samples, signals: Signals, fired_s: Mapping[str, Sequence[float]], title: str) -> Figure:
    """One run over time: P95 TTFT and when alarms fired, then queues, utilisation, KV, links and slack by node."""
    by_node = {
        "prefill queue\n(1,000 tokens)": samples.queued_prompt_tokens / 1e3,
        "busy (%)": 100 * samples.busy_share,
        "KV in use (%)": 100 * samples.kv_share,
        "KV to send\n(GB)": samples.sending_bytes / 1e9,
        "decode slack\n(% of TBT SLO)": 100 * samples.decode_slack,
    }
    shading = f"\nshaded: P95 TTFT is above its SLO, or was within the last {WINDOW_S:g} s"
    title += shading if signals.breaks else ""
    figure, panels = panels_of(1 + len(by_node), 1, title, 9.0, 9.6, sharex=True)
    for axes in panels:
        clean(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        for broken in signals.breaks:
            axes.axvspan(*broken, color=_BROKEN, alpha=0.13, linewidth=0)
    _alarms(panels[0], signals, fired_s)
    nodes = samples.busy_s.shape[1]
    prefill, decode = range(samples.prefill_nodes), range(samples.prefill_nodes, nodes)
    roles = [("prefill", prefill, "Blues", (0.95, 0.5)), ("decode", decode, "Oranges", (0.8, 0.45))]
    for axes, (text, values) in zip(panels[1:], by_node.items(), strict=True):
        time_s, means = thinned(samples.time_s, values)
        for role, of_role, colours, shades in roles:
            for node, shade in zip(of_role, np.linspace(*shades, len(of_role)), strict=True):
                name = f"{role} node {node}" if nodes <= _NAMED_NODES else f"{role} nodes"
                axes.plot(time_s, means[:, node], color=colormaps[colours](shade), linewidth=1.1, label=name)
        axes.set_ylabel(text, fontsize=9)
    for axes in panels[1:-1]:
        axes.set_ylim(bottom=0)
    panels[2].set(yticks=[0, 50, 100], ylim=(0, 108))
    panels[-1].set_xlim(0.0, samples.time_s[-1])
    step_s = time_s[1] - time_s[0] if len(time_s) > 1 else 0.0
    panels[-1].set_xlabel(f"time (s); values of nodes are means over {step_s:.2g} s")
    legend_below(figure, panels[1], 4)
    return figure


def _alarms(axes: Axes, signals: Signals, fired_s: Mapping[str, Sequence[float]]) -> None:
    """The running P95 against its SLO, and above it when alarms fired."""
    axes.plot(signals.time_s, signals.ttft_p95, color="black", linewidth=1.2)
    axes.axhline(1.0, color="0.3", linewidth=0.8, linestyle=(0, (4, 3)))
    top = max(1.2, 1.1 * float(np.nanmax(signals.ttft_p95, initial=0.0)))
    axes.set_ylim(0.0, top * (1.0 + 0.14 * len(fired_s)))
    for rank, (alarm, times_s) in enumerate(fired_s.items()):
        heights = [top * (1.07 + 0.14 * rank)] * len(times_s)
        colour, _, marker = _STYLES[alarm]
        axes.plot(times_s, heights, marker, color=colour, markersize=5, label=f"{alarm} alarm fires")
    axes.set_ylabel("P95 TTFT / SLO", fontsize=9)
    if fired_s:
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1}
        axes.legend(ncols=4, frameon=False, fontsize=8, handletextpad=0.2, **place)


def alarms_around_breaks(panels: Mapping[str, Mapping[str, Floats]], title: str) -> Figure:
    """Share of the breaks on which an alarm has fired by time since; `panels`: leads, -inf if missed, by alarm."""
    figure, grid = grid_of(len(panels), title, 4.7, 2.5, sharex=True, sharey=True)
    for axes, (name, leads) in zip(grid, panels.items(), strict=True):
        clean(axes)
        count = max(map(len, leads.values()))
        for alarm, leads_s in leads.items() if count else ():
            after_s = np.sort(-leads_s[leads_s > -inf])
            colour, dashes, _ = _STYLES[alarm]
            share = 100 * np.append(np.arange(len(after_s) + 1), len(after_s)) / count
            times_s = [-_FAR_S, *after_s, _FAR_S]
            axes.step(times_s, share, where="post", color=colour, linestyle=dashes, linewidth=1.7, label=alarm)
        axes.axvline(0.0, color=_BROKEN, linewidth=1.4)
        axes.set_title(f"{name}: {counted(count, 'break')}", loc="left", fontsize=9)
    for axes in grid[-2:]:
        axes.set_xlabel("time since P95 TTFT broke its SLO (s)", fontsize=9)
    for axes in grid[::2]:
        axes.set_ylabel("breaks with the alarm (%)", fontsize=9)
    grid[0].set(xlim=(-_BEFORE_S, _AFTER_S), ylim=(0, 102))
    grid[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}" if value else "0"))
    legend_below(figure, max(grid, key=lambda axes: len(axes.get_legend_handles_labels()[1])), 4)
    return figure
