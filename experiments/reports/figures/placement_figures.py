"""The figure of where a policy disaggregates: shares of the requests by workload, TBT SLO and load."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.analysis.folders.placement_shares import PlacementShares
from experiments.analysis.folders.virtual_best import Cell
from experiments.reports.figures import style

_LABELS = ("prefill and decode on two nodes", "both on a decode node", "both on a prefill node")
_COLOURS = (style.COLOURS[0], style.COLOURS[4], style.COLOURS[2])


def shares(cells: Mapping[Cell, PlacementShares], policy: str) -> Figure:
    """One panel per workload (rows) and TBT SLO (columns) with a stacked bar per load."""
    slos_s = sorted({cell.tbt_slo_s for cell in cells})
    workloads = list(dict.fromkeys(cell.workload for cell in cells))
    size = max(6.4, 0.9 + 1.7 * len(slos_s)), 1.5 + 1.15 * len(workloads)
    figure, panels = style.panels_of(
        len(workloads), len(slos_s), f"Where {policy} places requests", *size, sharey=True, sharex=True
    )
    for axes, (workload, slo_s) in zip(panels, [(w, s) for w in workloads for s in slos_s], strict=True):
        loads = sorted(cell.load for cell in cells if (cell.workload, cell.tbt_slo_s) == (workload, slo_s))
        values = np.array([cells[Cell(workload, load, slo_s)] for load in loads]).reshape(len(loads), len(_LABELS))
        places = [f"{load:g}" for load in loads]
        bottom = np.zeros(len(loads))
        for label, colour, share in zip(_LABELS, _COLOURS, values.T, strict=True):
            axes.bar(places, share, bottom=bottom, color=colour, width=0.85, label=label)
            bottom += share
        style.clean(axes, grid=False)
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        if workload == workloads[0]:
            axes.set_title(f"TBT SLO {1e3 * slo_s:g} ms", fontsize=9)
        if slo_s == slos_s[0]:
            axes.set_ylabel(workload, fontsize=9)
        if workload == workloads[-1]:
            axes.set_xlabel("load", fontsize=8)
    style.legend_below(figure, panels[0], columns=3, size=8)
    return figure
