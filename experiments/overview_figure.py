"""The picture of a whole comparison: policies by workloads and loads, against the base and against the SLOs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.drawing import save, text_colour
from experiments.groups import Groups, base_of, ranked, workloads
from experiments.printed import label

Floats = NDArray[np.float64]

_FOUR_TIMES = 2.0
"""Where the colours of a ratio end, as a power of two: beyond it is bad or good enough."""


def overview(groups: Groups, path: Path) -> None:
    """P95 TTFT against the base's, and SLO attainment: a row a policy, a column a workload and load.

    Rows are in order of P95 TTFT. A change whose paired 95 % interval holds 0 is in brackets.

    Args:
        groups: results.
        path: the PNG file to write.
    """
    base, rows = base_of(groups), ranked(groups)
    columns = [f"{load:g}" for _, load in groups]
    shape = (len(rows), len(groups))
    ratio, met, decided = np.empty(shape), np.empty(shape), np.ones(shape, dtype=bool)
    for column, group in enumerate(groups.values()):
        for row, policy in enumerate(rows):
            runs = group[policy]
            ratio[row, column] = runs.mean("ttft_p95_s") / group[base].mean("ttft_p95_s")
            met[row, column] = 100 * runs.mean("slo_attainment")
            decided[row, column] = policy == base or runs.difference("ttft_p95_s", group[base]).excludes_zero

    width, height = 2.6 + max(0.37 * len(groups), 3.4), 0.25 * len(rows)
    figure = Figure(figsize=(width, 2 * height + 2.6), layout="constrained")
    above, below = figure.subplots(2, 1)
    _cells(above, np.log2(ratio), Normalize(-_FOUR_TIMES, _FOUR_TIMES), "RdBu_r", _changes(ratio, decided))
    above.set_title(f"P95 TTFT against {label(base)} (%); in brackets: not told apart", fontsize=10, loc="left", pad=20)
    _cells(below, met, Normalize(0, 100), "viridis", [[f"{value:.0f}" for value in line] for line in met])
    below.set_title("SLO attainment (%)", fontsize=10, loc="left", pad=20)
    for axes in (above, below):
        axes.set_yticks(range(len(rows)), [label(policy) for policy in rows], fontsize=8)
        axes.set_xticks(range(len(columns)), columns, fontsize=8)
        _name_workloads(axes, groups)
    below.set_xlabel("load", fontsize=9)
    save(figure, path)


def _changes(ratio: Floats, decided: NDArray[np.bool_]) -> list[list[str]]:
    """Changes in percent, multiples where they are large; what is not decided in brackets."""

    def shown(value: float, sure: bool) -> str:
        text = f"{100 * (value - 1):+.0f}" if value < 10 else f"x{value:.0f}"
        return text if sure else f"({text})"

    return [[shown(*cell) for cell in zip(*line, strict=True)] for line in zip(ratio, decided, strict=True)]


def _cells(
    axes: Axes,
    values: Floats,
    scale: Normalize,
    colours: str,
    texts: Sequence[Sequence[str]],
) -> None:
    image = axes.imshow(values, cmap=colours, norm=scale, aspect="auto")
    backgrounds = np.asarray(image.cmap(scale(values)))
    for (row, column), text in np.ndenumerate(np.array(texts)):
        colour = text_colour(backgrounds[row, column].tolist())
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=7, color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _name_workloads(axes: Axes, groups: Groups) -> None:
    """Names above the columns, and a gap between workloads."""
    column = 0
    for workload in workloads(groups):
        loads = sum(name == workload for name, _ in groups)
        middle = column + (loads - 1) / 2
        axes.annotate(
            workload,
            (middle, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
        column += loads
        if column < len(groups):
            axes.axvline(column - 0.5, color="white", linewidth=3)
