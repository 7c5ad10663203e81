"""Figures of single runs: queues over time, and where prompts are prefilled."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from experiments.analysis.request_table import Floats, Records, rejected
from experiments.reports.figures.style import COLOURS, GROUPED_NUMBERS, clean, legend_below, panels_of

_QUEUE_SAMPLES = 800


def _panels(runs: Mapping[str, Records], title: str, height: float) -> tuple[Figure, list[Axes]]:
    """One panel per policy, below each other."""
    figure, panels = panels_of(len(runs), 1, title, 8.0, 1.4 + height * len(runs), sharex=True, sharey=True)
    for axes, name in zip(panels, runs, strict=True):
        axes.set_title(name, loc="left", fontsize=9, pad=2)
    panels[-1].set_xlabel("time (s)")
    return figure, panels


def queue_depth(runs: Mapping[str, Records], end_s: float, title: str) -> Figure:
    """Requests that wait for their prefill to start, one panel per policy (`runs`), until `end_s` seconds."""
    figure, panels = _panels(runs, f"{title}\nrequests waiting for prefill (logarithmic above 10)", 1.15)
    time_s = np.linspace(0.0, end_s, _QUEUE_SAMPLES)
    for axes, records in zip(panels, runs.values(), strict=True):
        for deflected, colour, text in (
            (False, COLOURS[0], "for a prefill node"),
            (True, COLOURS[4], "deflected: for the node that decodes it"),
        ):
            waiting = depth(records[records["deflected"] == deflected], time_s)
            axes.fill_between(time_s, waiting, step="post", color=colour, label=text, alpha=0.75, lw=0)
        clean(axes)
    # Linear up to ten, logarithmic above: a queue of three and one of a thousand are both visible.
    panels[0].set_yscale("symlog", linthresh=10)
    panels[0].yaxis.set_major_locator(FixedLocator([0, 5, 10, 100, 1000, 10_000, 100_000]))
    panels[0].yaxis.set_major_formatter(GROUPED_NUMBERS)
    panels[0].set(xlim=(0, end_s), ylim=(0, None))
    legend_below(figure, panels[0], 2)
    return figure


def depth(records: Records, time_s: Floats) -> NDArray[np.int64]:
    """How many of the requests wait for their prefill to start at each time, shape of `time_s`."""
    # nan sorts last: a prefill that never started never ends the wait. A rejected request does not wait.
    records = records[~rejected(records)]
    came = np.searchsorted(np.sort(records["arrival_s"]), time_s, side="right")
    began = np.searchsorted(np.sort(records["prefill_start_s"]), time_s, side="right")
    return came - began


def prefill_timeline(runs: Mapping[str, Records], start_s: float, end_s: float, title: str) -> Figure:
    """The nodes that prefill prompts over a short time: one panel per policy, one row per node, one bar per prompt."""
    decoding = [set(records["decode_node"].tolist()) for records in runs.values()]
    nodes = int(max(records[name].max() for records in runs.values() for name in ("prefill_node", "decode_node"))) + 1
    text = f"{title}\nwhere prompts are prefilled: one bar per prompt, orange if deflected"
    figure, panels = _panels(runs, text, 0.35 + 0.2 * nodes)
    for axes, records in zip(panels, runs.values(), strict=True):
        shown = records[(records["prefill_end_s"] >= start_s) & (records["prefill_start_s"] <= end_s)]
        for node in range(nodes):
            here = shown[shown["prefill_node"] == node]
            spans = np.stack([here["prefill_start_s"], here["prefill_end_s"] - here["prefill_start_s"]], axis=1)
            colours = np.where(here["deflected"], COLOURS[4], COLOURS[0]).tolist()
            # One collection per row: a patch for each prompt takes seconds to draw.
            axes.broken_barh(spans.tolist(), (node - 0.4, 0.8), facecolors=colours, edgecolor="white", linewidth=0.3)
        axes.tick_params(axis="y", labelsize=8)
        clean(axes, grid=False)
    # A rule may decode anywhere; if every one of them does, no node has a role.
    always = set.intersection(*decoding)
    mixed = always.issuperset(range(nodes))
    roles = ["node" if mixed else "decode" if node in always else "prefill" for node in range(nodes)]
    panels[0].set_yticks(range(nodes), [f"{role} {node}" for node, role in enumerate(roles)])
    panels[0].set(xlim=(start_s, end_s), ylim=(nodes - 0.5, -0.5))
    return figure


def busiest_s(records: Records, span_s: float) -> float:
    """The arrival that begins the `span_s` seconds in which most prompt tokens come, seconds."""
    arrival_s = records["arrival_s"]
    tokens_before = np.concatenate([[0], np.cumsum(records["prompt_tokens"])])
    last = np.searchsorted(arrival_s, arrival_s + span_s, side="right")
    tokens = tokens_before[last] - tokens_before[: len(arrival_s)]
    return float(arrival_s[np.argmax(tokens)])
