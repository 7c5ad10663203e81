"""The figure of an assessment: P95 TTFT over that of the virtual best, in every cell."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from experiments.analysis.folders.virtual_best import Cell
from experiments.reports.figures import style

_ENDS = 1.5
"""The ratio at which colours end, and 1 over it."""
_PANEL_INCHES, _COLUMN_INCHES, _ROW_INCHES = 0.35, 0.62, 0.21
_PANELS_PER_ROW = 4


class Square(NamedTuple):
    """A cell of the heat map: the ratio, whether it is counted, and whether it is outside the margins."""

    ratio: float
    counted: bool
    outside: bool


def ratios(panels: Mapping[str, Mapping[Cell, Square]], margins: str) -> Figure:
    """One panel per policy: rows are workloads and loads, columns TBT SLOs; cells outside the margins are outlined.

    A ratio in brackets is of a cell that is not counted; a grey cell was not run. `margins` are in words.
    """
    cells = list(dict.fromkeys(cell for panel in panels.values() for cell in panel))
    slos_s = sorted({cell.tbt_slo_s for cell in cells})
    workloads = list(dict.fromkeys(cell.workload for cell in cells))
    rows = sorted({(cell.workload, cell.load) for cell in cells}, key=lambda row: (workloads.index(row[0]), row[1]))
    across = min(_PANELS_PER_ROW, len(panels))
    down = -(-len(panels) // across)
    width = max(5.4, 1.6 + across * (_PANEL_INCHES + max(_COLUMN_INCHES * len(slos_s), 1.3)))
    title = "P95 TTFT / that of the virtual best\nchosen on the validation seeds"
    size = width, 1.8 + down * (0.75 + _ROW_INCHES * len(rows))
    figure, axes_of = style.panels_of(down, across, title, *size, sharey=True)
    end = np.log2(_ENDS)
    scale = Normalize(-end, end)
    image = ScalarMappable(scale, "RdBu_r")
    for axes in axes_of[len(panels) :]:
        axes.axis("off")
    for axes, (name, panel) in zip(axes_of, panels.items(), strict=False):
        squares = [[panel.get(Cell(*row, slo_s)) for slo_s in slos_s] for row in rows]
        values = np.array([[np.nan if one is None else np.log2(one.ratio) for one in line] for line in squares])
        texts = [["" if one is None else _text(one) for one in line] for line in squares]
        axes.set_facecolor("0.9")
        image = style.heat_map(axes, values, scale, "RdBu_r", texts, [])
        for row, line in enumerate(squares):
            for column, one in enumerate(line):
                if one is not None and one.outside:
                    axes.add_patch(Rectangle((column - 0.45, row - 0.39), 0.9, 0.78, fill=False, linewidth=1.6))
        for row in range(1, len(rows)):
            if rows[row][0] != rows[row - 1][0]:
                axes.axhline(row - 0.5, color="white", linewidth=3)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("workload and load", fontsize=8)
        axes.label_outer()
        axes.set_xticks(range(len(slos_s)), [f"{1e3 * slo_s:g}" for slo_s in slos_s], fontsize=8)
        axes.set_xlabel("TBT SLO (ms)", fontsize=8)
        axes.set_yticks(range(len(rows)), [f"{workload} {load:g}" for workload, load in rows], fontsize=8)
    place: dict[str, Any] = {"location": "bottom", "aspect": 50, "shrink": 0.8, "pad": 0.02, "extend": "both"}
    bar = figure.colorbar(image, ax=axes_of, **place)
    ticks = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)
    bar.set_ticks(np.log2(ticks).tolist(), labels=[f"{one:g}" for one in ticks], fontsize=8)
    outline = Patch(facecolor="none", edgecolor="black", linewidth=1.6, label=f"outside the margins ({margins})")
    brackets = Patch(
        facecolor="none", edgecolor="none", label="in brackets: not counted, because the virtual best misses many SLOs"
    )
    figure.legend(handles=[outline, brackets], loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    return figure


def _text(one: Square) -> str:
    text = f"{one.ratio:.3f}" if one.ratio < 9.995 else f"{one.ratio:.0f}"
    return text if one.counted else f"({text})"
