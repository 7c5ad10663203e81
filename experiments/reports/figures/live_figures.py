"""Figures of live runs next to simulations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.reports.figures.style import COLOURS


def ttft_scatter(of_policies: Mapping[str, Sequence[tuple[Any, ...]]], title: str) -> Figure:
    """TTFT of single requests, simulated (right) and live (up), one panel per policy.

    Args:
        of_policies: by policy, the TTFT of the requests of each run, live and simulated, seconds.
        title: of the figure.
    """
    columns = len(of_policies)
    figure = Figure(figsize=(2.4 * columns, 3.3), layout="constrained")
    panels = figure.subplots(1, columns, sharex=True, sharey=True, squeeze=False)
    drawn = np.concatenate([np.concatenate(run) for runs in of_policies.values() for run in runs])
    limits = np.nanmin(drawn) / 1.2, np.nanmax(drawn) * 1.2
    for panel, (policy, runs) in zip(panels[0], of_policies.items(), strict=True):
        panel.plot(limits, limits, color="0.6", linewidth=0.8)
        for live_s, simulated_s in runs:
            panel.plot(simulated_s, live_s, ".", color=COLOURS[0], markersize=2.5, alpha=0.5)
        panel.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
        panel.set_title(policy, fontsize=8)
        panel.set_aspect("equal")
    figure.supxlabel("simulated TTFT, s", fontsize=9)
    figure.supylabel("live TTFT, s", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure
