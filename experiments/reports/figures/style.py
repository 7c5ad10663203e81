"""The style of all figures: palette, axes, legends, and how a policy is drawn."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.analysis.bootstrap import Floats
from hardware_profiles.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, safe for colour-blind readers."""
MARKERS = "osD^vXP"
PART_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
PART_LABELS = ("prefill queue", "prefill execution", "KV transfer", "decode wait")
"""The parts of the TTFT, in the order of `request_table.PARTS`."""
OTHERS = "other policies"
PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:g}")
GROUPED_NUMBERS = FuncFormatter(lambda value, _: f"{value:,.0f}")

_DASHES = ("-", "--", ":", "-.")


class LineStyle(NamedTuple):
    """How a policy is drawn in every figure of a report; grey ones have no marker."""

    colour: str
    dashes: str
    width: float
    marker: str
    zorder: float

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line without markers."""
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": self.width, "zorder": self.zorder}


def line_styles(names: Sequence[str], coloured: Sequence[str]) -> dict[str, LineStyle]:
    """How each policy is drawn; those in `coloured` are in colour, and by its order in which; the others are grey."""
    styles = dict.fromkeys(names, LineStyle("0.78", "-", 1.0, "", 2.0))
    for rank, name in enumerate(coloured):
        turn, colour = divmod(rank, len(COLOURS))
        styles[name] = LineStyle(COLOURS[colour], _DASHES[turn % len(_DASHES)], 1.9, MARKERS[colour], 3.0)
    return styles


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file; equal pictures give equal bytes."""
    with replacing(path) as temporary:
        # No software version in the file, or a newer matplotlib would change it.
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def axes_of(title: str, x: str, y: str, width: float = 7.2, height: float = 4.3) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set(xlabel=x, ylabel=y)
    clean(axes)
    return figure, axes


def panels_of(
    rows: int, columns: int, title: str, width: float, height: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with panels, row by row; `shared` are `sharex` and `sharey`, sizes are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def grid_of(
    panels: int, title: str, panel_width: float, panel_height: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with panels in two columns; the axes that are left over are hidden. See `panels_of`."""
    columns = min(2, panels)
    rows = -(-panels // columns)
    size = max(6.0, panel_width * columns), 1.2 + panel_height * rows
    figure, grid = panels_of(rows, columns, title, *size, **shared)
    for axes in grid[panels:]:
        axes.axis("off")
    for axes in grid[max(0, panels - columns) : panels]:
        axes.tick_params(labelbottom=True)
    return figure, grid[:panels]


def heat_map(
    axes: Axes, values: Floats, scale: Normalize, colours: str, texts: Sequence[Sequence[str]], gaps: Iterable[int]
) -> ScalarMappable:
    """Coloured cells with a text in each, and a gap before the columns `gaps`; returns what a colour bar needs."""
    image = axes.imshow(values, cmap=colours, norm=scale, aspect="auto")
    backgrounds = np.asarray(image.cmap(scale(values)))
    for (row, column), text in np.ndenumerate(np.array(texts)):
        colour = text_colour(backgrounds[row, column].tolist())
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=7, color=colour)
    for column in gaps:
        axes.axvline(column - 0.5, color="white", linewidth=3)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def clean(axes: Axes, *, grid: bool = True) -> None:
    """A faint grid behind, and no frame but the two axes."""
    if grid:
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes, columns: int | None = None, size: float = 9) -> None:
    """A legend below the axes, where it covers no curve; the entry of the grey policies last."""
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = dict(sorted(entries.items(), key=lambda entry: entry[0] == OTHERS))
    longest = max(map(len, ordered), default=0)
    fitting = 4 if longest < 20 else 3 if longest < 28 else 2
    figure.legend(
        ordered.values(), ordered, loc="outside lower center", ncols=columns or fitting, frameon=False, fontsize=size
    )


def text_colour(background: Sequence[float]) -> str:
    """The colour of text that can be read on a background (red, green, blue from 0 to 1)."""
    red, green, blue = background[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
