"""Figures of the map: the kind that wins under each condition, and role-free against role-keeping P95 TTFT."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle

from experiments.analysis.map_conditions import Condition, Contest, Contests, tied
from experiments.reports.figures.style import COLOURS, text_colour
from experiments.reports.formatting import label, times
from policies import PolicySpec
from policies.kinds import RULE_KINDS, Kind

_COLOUR: dict[Kind, str] = dict(zip(RULE_KINDS, (COLOURS[0], COLOURS[4], COLOURS[2]), strict=True))
_TINT = 0.62  # share of white in the colour of a winner that is tied with another kind
_FOUR_TIMES = 2.0  # colours of a ratio end at this power of two
_WIDTH_INCHES = 8.0
_ROW_INCHES = 0.36
_CELL_CHARACTERS = 17  # that fit into a cell of the largest map, of two step budgets and four TBT SLOs
_WORKLOAD_GAP = 0.18  # between workloads, in rows


def winners(contests: Contests, title: str) -> Figure:
    """The winner under each condition, coloured by its kind, with its P95 TTFT and SLO attainment.

    A winner that is tied with another kind has a lighter colour, and a corner in the other kind's colour.
    """

    def draw(axes: Axes, left: float, top: float, contest: Contest) -> None:
        winner, others = contest.winner, contest.tied_kinds
        face = tuple(1 - (1 - _TINT if others else 1) * (1 - share) for share in to_rgb(_COLOUR[winner.kind]))
        _fill(axes, left, top, face)
        for rank, kind in enumerate(others):
            right, low = left + 0.985, top + 0.97 * (1 - rank)
            high = low + (0.3 if rank else -0.3)
            axes.add_patch(Polygon([(right, low), (right - 0.11, low), (right, high)], facecolor=_COLOUR[kind]))
        p95 = f"{1e3 * winner.p95.value:,.0f} ms, {100 * winner.attainment.value:.0f} %"
        _write(axes, left, top, [*_name(winner.policy), p95], text_colour(face))

    figure = _panels(contests, f"{title}\nP95 TTFT and SLO attainment of the winner", draw)
    handles = [Patch(facecolor=_COLOUR[kind], label=f"{kind} rule wins") for kind in RULE_KINDS]
    handles.append(Patch(facecolor="0.8", label="lighter: tied with the kind in the corner"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
    return figure


def ratios(contests: Contests, title: str) -> Figure:
    """The best role-free rule's P95 TTFT over that of the best rule that keeps roles, with its interval."""
    scale, colours = Normalize(-_FOUR_TIMES, _FOUR_TIMES), colormaps["BrBG_r"]

    def draw(axes: Axes, left: float, top: float, contest: Contest) -> None:
        ratio = contest.role_free_ratio
        if ratio is None:
            # Hatched: the side that takes part wins, but there is no ratio.
            role_free = "role-free" in contest.best
            face = colours(scale(-0.7 if role_free else 0.7))[:3]
            _fill(axes, left, top, face, hatch="//")
            _write(axes, left, top, ["role-free" if role_free else "role-keeping", "only"], "black", face)
            return
        face = colours(scale(np.log2(ratio.value)))[:3]
        _fill(axes, left, top, face)
        colour = text_colour(face)
        if tied(ratio):
            axes.plot(left + 0.13, top + 0.3, marker="o", markersize=4.5, markerfacecolor="none", color=colour)
        _write(axes, left, top, [times(ratio.value), f"[{times(ratio.low)}, {times(ratio.high)}]"], colour)

    names = "P95 TTFT of the best role-free rule / that of the best rule that keeps roles"
    note = "Circle: tied (the interval includes 1)"
    if any(contest.role_free_ratio is None for contest in contests.values()):
        note += "; only: the other side has no rule that takes part"
    figure = _panels(contests, f"{title}\n{names}, 95 % interval\n{note}", draw)
    place: dict[str, Any] = {"location": "bottom", "aspect": 60, "shrink": 0.7, "pad": 0.015, "extend": "both"}
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=figure.axes, **place)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["0.25", "0.5", "1", "2", "4"], fontsize=7.5)
    bar.set_label("left: role-free lower; right: role-keeping lower", fontsize=7.5)
    return figure


def _fill(axes: Axes, left: float, top: float, face: str | tuple[float, ...], hatch: str | None = None) -> None:
    axes.add_patch(Rectangle((left, top), 1, 1, facecolor=face, edgecolor="white", hatch=hatch))


def _name(policy: PolicySpec) -> list[str]:
    """The name of a rule; a long one with its parameters on a second line, cut at the end of the cell."""
    name = label(policy)
    if len(name) <= _CELL_CHARACTERS:
        return [name]
    parts = filter(None, name.replace("choices=", "").split(":", 1))  # the set of choices is named by its value
    return [part if len(part) <= _CELL_CHARACTERS else part[: _CELL_CHARACTERS - 1] + "…" for part in parts]


def _write(
    axes: Axes, left: float, top: float, lines: Sequence[str], colour: str, behind: tuple[float, ...] | None = None
) -> None:
    """Lines of text in a cell, the first one larger; `behind` is their background over a hatch."""
    box = {"facecolor": behind, "edgecolor": "none", "pad": 0.6} if behind else None
    for line, text in enumerate(lines):
        height, size = top + (0.5 + line) / len(lines) * 0.84 + 0.08, 6.0 if line else 7.0
        axes.text(left + 0.5, height, text, ha="center", va="center", fontsize=size, color=colour, bbox=box)


def _panels(contests: Contests, title: str, draw: Callable[[Axes, float, float, Contest], None]) -> Figure:
    """One panel per step budget: rows are workloads and loads, columns are TBT SLOs."""
    budgets = sorted({key.step_budget for key in contests})
    slos_s = sorted({key.tbt_slo_s for key in contests})
    workloads = list(dict.fromkeys(key.workload for key in contests))
    rows = sorted({(key.workload, key.load) for key in contests}, key=lambda row: (workloads.index(row[0]), row[1]))
    tops = [rank + _WORKLOAD_GAP * workloads.index(workload) for rank, (workload, _) in enumerate(rows)]
    figure = Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * (tops[-1] + 1) + 1.45), layout="constrained")
    figure.suptitle(title, fontsize=9)
    panels: Sequence[Axes] = figure.subplots(1, len(budgets), sharey=True, squeeze=False)[0]
    for axes, budget in zip(panels, budgets, strict=True):
        axes.set_xlim(0, len(slos_s))
        axes.set_ylim(tops[-1] + 1, 0)
        for (top, row), (left, slo_s) in product(zip(tops, rows, strict=True), enumerate(slos_s)):
            if contest := contests.get(Condition(budget, slo_s, *row)):
                draw(axes, left, top, contest)
            else:
                _fill(axes, left, top, "0.93")
                axes.text(left + 0.5, top + 0.5, "not run", ha="center", va="center", fontsize=6, color="0.5")
        axes.set_title(f"step budget {budget}", fontsize=9)
        axes.set_xticks(np.arange(len(slos_s)) + 0.5, [f"{1e3 * slo_s:g}" for slo_s in slos_s], fontsize=8)
        axes.set_xlabel("TBT SLO (ms)", fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(np.array(tops) + 0.5, [f"{workload} {load:g}" for workload, load in rows], fontsize=8)
    panels[0].set_ylabel("workload and load\n(multiple of the knee of static)", fontsize=8)
    return figure
