"""Figures of the map: the kind that wins under each condition, and role-free against role-keeping P95 TTFT."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle

from experiments.drawing import COLOURS, save, text_colour
from experiments.map.folders import Condition
from experiments.map.kinds import MAPPED_KINDS, Kind
from experiments.map.report import times
from experiments.map.winners import Contest, Contests, tied
from experiments.printed import label

_COLOUR: dict[Kind, str] = dict(zip(MAPPED_KINDS, (COLOURS[0], COLOURS[4], COLOURS[2]), strict=True))
_TINT = 0.62
"""Share of white in the colour of a winner that is tied with another kind."""
_NOT_RUN = "0.93"
_FOUR_TIMES = 2.0
"""Where the colours of a ratio end, as a power of two."""
_WIDTH_INCHES = 8.0  # 1,200 pixels at the plot style's 150 dpi
_ROW_INCHES = 0.36
_CELL_CHARACTERS = 17  # that fit into a cell of the largest map, of two step budgets and four TBT SLOs
_WORKLOAD_GAP = 0.18  # between workloads, in rows


def winners(contests: Contests, title: str, path: Path) -> None:
    """Draw the winner under each condition, coloured by its kind, with its P95 TTFT and SLO attainment.

    A winner that is tied with another kind has a lighter colour, and a corner in the other kind's colour.

    Args:
        contests: the result under each condition.
        title: of the figure.
        path: the PNG file to write.
    """

    def draw(axes: Axes, left: float, top: float, contest: Contest) -> None:
        winner, others = contest.winner, contest.tied_kinds
        red, green, blue = to_rgb(_COLOUR[winner.kind])
        white = _TINT if others else 0.0
        face = (red + (1 - red) * white, green + (1 - green) * white, blue + (1 - blue) * white)
        axes.add_patch(Rectangle((left, top), 1, 1, facecolor=face, edgecolor="white"))
        for rank, kind in enumerate(others):
            right, low, high = left + 0.985, top + 0.97 * (1 - rank), top + 0.97 * (1 - rank) + (0.3 if rank else -0.3)
            axes.add_patch(Polygon([(right, low), (right - 0.11, low), (right, high)], facecolor=_COLOUR[kind]))
        p95_ms, met = 1e3 * winner.ttft_p95_s.mean(), winner.slo_attainment.mean()
        _write(axes, left, top, [*_name(winner.label), f"{p95_ms:,.0f} ms, {100 * met:.0f} %"], text_colour(face))

    figure = _panels(contests, f"{title}\nP95 TTFT and SLO attainment of the winner", draw)
    handles = [Patch(facecolor=_COLOUR[kind], label=f"{kind} rule wins") for kind in MAPPED_KINDS]
    handles.append(Patch(facecolor="0.8", label="lighter: tied with the kind in the corner"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
    save(figure, path)


def ratios(contests: Contests, title: str, path: Path) -> None:
    """Draw the best role-free rule's P95 TTFT over that of the best rule that keeps roles, with its interval.

    Args:
        contests: the result under each condition.
        title: of the figure.
        path: the PNG file to write.
    """
    scale, colours = Normalize(-_FOUR_TIMES, _FOUR_TIMES), colormaps["BrBG_r"]

    def draw(axes: Axes, left: float, top: float, contest: Contest) -> None:
        ratio = contest.role_free_ratio
        if ratio is None:
            # Hatched: the side that takes part wins, but there is no ratio.
            role_free = "role-free" in contest.best
            face = colours(scale(-0.7 if role_free else 0.7))[:3]
            axes.add_patch(Rectangle((left, top), 1, 1, facecolor=face, edgecolor="white", hatch="//"))
            _write(axes, left, top, ["role-free" if role_free else "role-keeping", "only"], "black", face)
            return
        face = colours(scale(np.log2(ratio.value)))[:3]
        axes.add_patch(Rectangle((left, top), 1, 1, facecolor=face, edgecolor="white"))
        colour = text_colour(face)
        if tied(ratio):
            axes.plot(left + 0.13, top + 0.3, marker="o", markersize=4.5, markerfacecolor="none", color=colour)
        _write(axes, left, top, [times(ratio.value), f"[{times(ratio.low)}, {times(ratio.high)}]"], colour)

    names = "P95 TTFT of the best role-free rule / that of the best rule that keeps roles"
    some_alone = any(contest.role_free_ratio is None for contest in contests.values())
    note = "\nCircle: tied (the interval includes 1)" + (
        "; only: the other side has no rule that takes part" * some_alone
    )
    figure = _panels(contests, f"{title}\n{names}, 95 % interval{note}", draw)
    bar = figure.colorbar(
        ScalarMappable(scale, colours),
        ax=figure.axes,
        location="bottom",
        aspect=60,
        shrink=0.7,
        pad=0.015,
        extend="both",
    )
    ticks = [-2, -1, 0, 1, 2]
    bar.set_ticks(ticks, labels=[f"{2.0**tick:g}" for tick in ticks], fontsize=7.5)
    bar.set_label("left: role-free lower; right: role-keeping lower", fontsize=7.5)
    save(figure, path)


def _name(policy: str) -> list[str]:
    """The name of a rule; a long one with its parameters on a second line, cut where the cell ends."""
    name = label(policy)
    if len(name) <= _CELL_CHARACTERS:
        return [name]
    parts = [part for part in name.partition(":") if part not in ("", ":")]
    parts = [part.replace("choices=", "") for part in parts]  # the set of choices is named by its value
    return [part if len(part) <= _CELL_CHARACTERS else part[: _CELL_CHARACTERS - 1] + "…" for part in parts]


def _write(
    axes: Axes, left: float, top: float, lines: Sequence[str], colour: str, behind: tuple[float, ...] | None = None
) -> None:
    """Lines of text in a cell, the first one larger; `behind` is their background over a hatch."""
    box = {"facecolor": behind, "edgecolor": "none", "pad": 0.6} if behind else None
    for line, text in enumerate(lines):
        height = top + (0.5 + line) / len(lines) * 0.84 + 0.08
        size = 7.0 if line == 0 else 6.0
        axes.text(left + 0.5, height, text, ha="center", va="center", fontsize=size, color=colour, bbox=box)


def _panels(contests: Contests, title: str, draw: Callable[[Axes, float, float, Contest], None]) -> Figure:
    """One panel per step budget: rows are workloads and loads, columns are TBT SLOs."""
    budgets = sorted({key.step_budget for key in contests})
    columns = sorted({key.tbt_slo_s for key in contests})
    rows = list(dict.fromkeys((key.workload, key.load) for key in contests))
    workloads = list(dict.fromkeys(workload for workload, _ in rows))
    rows.sort(key=lambda row: (workloads.index(row[0]), row[1]))
    tops = [row + _WORKLOAD_GAP * workloads.index(workload) for row, (workload, _) in enumerate(rows)]
    height = tops[-1] + 1
    figure = Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * height + 1.45), layout="constrained")
    figure.suptitle(title, fontsize=9)
    panels: Sequence[Axes] = figure.subplots(1, len(budgets), sharey=True, squeeze=False)[0]
    for axes, budget in zip(panels, budgets, strict=True):
        axes.set_xlim(0, len(columns))
        axes.set_ylim(height, 0)
        for top, (workload, load) in zip(tops, rows, strict=True):
            for left, tbt_slo_s in enumerate(columns):
                contest = contests.get(Condition(budget, tbt_slo_s, workload, load))
                if contest is None:
                    axes.add_patch(Rectangle((left, top), 1, 1, facecolor=_NOT_RUN, edgecolor="white"))
                    axes.text(left + 0.5, top + 0.5, "not run", ha="center", va="center", fontsize=6, color="0.5")
                else:
                    draw(axes, left, top, contest)
        axes.set_title(f"step budget {budget}", fontsize=9)
        axes.set_xticks([left + 0.5 for left in range(len(columns))], [f"{1e3 * slo:g}" for slo in columns], fontsize=8)
        axes.set_xlabel("TBT SLO (ms)", fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks([top + 0.5 for top in tops], [f"{workload} {load:g}" for workload, load in rows], fontsize=8)
    panels[0].set_ylabel("workload and load (multiple of the knee of static)", fontsize=8)
    return figure
