"""The report of an assessment: how policies compare with the virtual best of each cell."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.analysis.bootstrap import Interval
from experiments.analysis.csv_files import write_csv
from experiments.analysis.folders.assessment import (
    COUNTED_ATTAINMENT,
    ERROR_RATE,
    Against,
    Assessed,
    Margins,
    Totals,
    totals,
)
from experiments.analysis.folders.placement_shares import PlacementShares
from experiments.analysis.folders.virtual_best import Cell, Portfolio
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, code, plain, table
from experiments.reports.document import Picture, Section, for_console, write_report
from experiments.reports.figures.assessment_figures import Square, ratios
from experiments.reports.figures.placement_figures import shares
from experiments.reports.folders.virtual_best_text import RULE, made_by, slo_ms

_three = partial(show.with_interval, show="{:.3f}".format)
_points = partial(show.with_interval, show="{:+.2f}".format)


class _Total(NamedTuple):
    policy: str
    group: str
    totals: Totals


class _Row(NamedTuple):
    policy: str
    cell: Cell
    one: Assessed


def write_assessment(
    found: Mapping[str, Sequence[Assessed]],
    portfolio: Portfolio,
    margins: Margins,
    seeds: Sequence[int],
    placed: Mapping[str, Mapping[Cell, PlacementShares]],
    typed: str,
    folder: Path,
) -> str:
    """Write assessment.csv, summary.md, report.html and figures/ into `folder`; returns the main tables, to print."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_Row(label, one.cell, one) for label, several in found.items() for one in several]
    fields = [_fields(row) for row in rows]
    write_csv(folder / "assessment.csv", fields[0], [row.values() for row in fields])
    assessed = next(iter(found.values()))
    outside, uncounted = ([row for row in rows if keep(row.one)] for keep in (_outside, _uncounted))
    sums = _totals(found)
    several_slos = len({one.cell.tbt_slo_s for one in assessed}) > 1
    lost = _compared(outside) or "None."
    size = f"{len(assessed)} of the {len(portfolio.cells)} cells of the portfolio."
    if both := set(seeds) & set(portfolio.seeds):
        size += f" The virtual best was chosen on {len(both)} of the same seeds, which flatters the rules."
    panels = {
        label: {one.cell: Square(one.chosen.ratio.value, one.chosen.counted, one.outside) for one in several}
        for label, several in found.items()
    }
    caption = (
        "P95 TTFT divided by that of the virtual best chosen on the validation seeds, by workload and load (rows) and "
        f"TBT SLO (columns): blue is lower. Outlined: outside the margins of {margins}. In brackets: not counted."
    )
    heat_map = Picture(
        "ratios", ratios(panels, str(margins)), "P95 TTFT against the virtual best in every cell", caption
    )
    where = [
        Picture(
            f"placements-{label.replace('/', '-')}",
            shares(cells, label),
            f"Where {label} places requests",
            "Shares of the requests, means over seeds, by workload (rows), TBT SLO (columns) and load.",
        )
        for label, cells in placed.items()
        if cells
    ]
    sections: list[Section] = [
        ("", [size]),
        ("## Totals", [sums]),
        *([("## Totals by TBT SLO", [_totals_by_slo(found)])] if several_slos else []),
        ("## Counted cells outside the margins", [lost]),
        ("## Every cell", [heat_map]),
        *([("## Where requests are placed", list(where))] if where else []),
        ("## Cells that are not counted", [_compared(uncounted)]),
        ("## How to read it", [_reading(margins)]),
        ("---\n\n## How this was made", [made_by(typed, portfolio, seeds)]),
    ]
    write_report("Policies against the virtual best", sections, folder)
    return for_console(size, f"Totals:\n{sums}", f"Counted cells outside the margins of {margins}:\n{lost}")


def _outside(one: Assessed) -> bool:
    return one.outside


def _uncounted(one: Assessed) -> bool:
    return not one.chosen.counted


def _reading(margins: Margins) -> str:
    return bullets([
        f'{RULE} "Validation": chosen on the seeds of the portfolio, measured on the seeds of this report. "Test": '
        "chosen among the rules of these folders on the seeds that it is measured on, which favours the rules.",
        "All results are paired by seed; [95 % intervals] are bootstraps over seeds, those of ratios on the "
        "logarithmic scale.",
        f"A cell is counted if the virtual best meets at least {COUNTED_ATTAINMENT:.0%} of the SLOs. Margins (not from "
        f"a paper): {margins}. Within: both estimates keep them. Non-inferior: both whole intervals keep them.",
        f"Better: P95 TTFT is lower at {ERROR_RATE:.0%} with Holm's correction over all cells, by a one-sided test "
        "(Student's t of the logarithm of the ratio, with the spread of its bootstrap), and the interval of the SLO "
        "attainment keeps its margin.",
        "At or below, better and the geometric mean are over all cells; its interval resamples the seeds of each cell "
        "separately. The worst cells are those of the counted ones, or of all if none is counted.",
    ])  # fmt: skip


def _totals(found: Mapping[str, Sequence[Assessed]]) -> str:
    rows = [
        _Total(label, on, totals([(one.cell, one.policy, getattr(one, name)) for one in several]))
        for label, several in found.items()
        for on, name in (("validation", "chosen"), ("test", "on_test"))
    ]

    columns: list[Column[_Total]] = [
        Column("policy", lambda row: code(row.policy), left=True),
        Column("virtual best chosen on", lambda row: row.group, left=True),
        *_counts(),
        Column("highest ratio", lambda row: _worst(*row.totals.worst)),
        Column(
            "largest loss of attainment (points)",
            lambda row: _worst(100 * row.totals.worst_loss[0], row.totals.worst_loss[1], "{:+.2f}"),
        ),
    ]
    return table(columns, rows)


def _totals_by_slo(found: Mapping[str, Sequence[Assessed]]) -> str:
    """Totals against the virtual best of the portfolio, by TBT SLO."""
    rows = [
        _Total(
            label,
            slo_ms(slo_s),
            totals([(one.cell, one.policy, one.chosen) for one in several if one.cell.tbt_slo_s == slo_s]),
        )
        for label, several in found.items()
        for slo_s in dict.fromkeys(one.cell.tbt_slo_s for one in several)
    ]
    columns: list[Column[_Total]] = [
        Column("policy", lambda row: code(row.policy), left=True),
        Column("TBT SLO", lambda row: row.group),
        *_counts(),
        Column("highest ratio", lambda row: _worst(*row.totals.worst)),
    ]
    return table(columns, rows)


def _worst(value: float, cell: Cell, show_value: str = "{:.3f}") -> str:
    return f"{show_value.format(value)} ({plain(str(cell))})"


def _counts() -> list[Column[_Total]]:
    return [
        Column("cells counted", lambda row: f"{row.totals.counted} of {row.totals.cells}"),
        Column("within the margins", lambda row: f"{row.totals.within} of {row.totals.counted}"),
        Column("non-inferior", lambda row: f"{row.totals.non_inferior} of {row.totals.counted}"),
        Column("at or below", lambda row: f"{row.totals.at_or_below} of {row.totals.cells}"),
        Column("better", lambda row: f"{row.totals.better} of {row.totals.cells}"),
        Column("TTFT P95 / virtual best, geometric mean", lambda row: _three(row.totals.ratio)),
    ]


def _compared(rows: Sequence[_Row]) -> str:
    def against(row: _Row) -> Against:
        return row.one.chosen

    columns: list[Column[_Row]] = [
        Column("policy", lambda row: code(row.policy), left=True),
        Column("workload", lambda row: plain(row.cell.workload), left=True),
        Column("load", lambda row: f"{row.cell.load:g}"),
        Column("TBT SLO (ms)", lambda row: f"{1e3 * row.cell.tbt_slo_s:g}"),
        Column("virtual best", lambda row: code(against(row).base.policy.label), left=True),
        Column("step budget", lambda row: against(row).base.step_budget, left=True),
        Column("its TTFT P95 (ms)", lambda row: show.ms(against(row).base.mean_p95_s)),
        Column("its attainment (%)", lambda row: show.percent(against(row).base.mean_attainment)),
        Column("TTFT P95 / virtual best", lambda row: _three(against(row).ratio)),
        Column(
            "attainment (points)", lambda row: _points(Interval(*(100 * value for value in against(row).difference)))
        ),
    ]
    return table(columns, rows)


def _fields(row: _Row) -> dict[str, object]:
    """A row of assessment.csv."""
    one = row.one
    fields: dict[str, object] = {
        "policy": row.policy,
        **row.cell._asdict(),
        "rate_rps": one.rate_rps,
        "seeds": len(one.policy.p95_s),
        "step_budget": one.policy.step_budget,
        "ttft_p95_s": one.policy.mean_p95_s,
        "slo_attainment": one.policy.mean_attainment,
    }
    for start, against in (("", one.chosen), ("test_", one.on_test)):
        values: dict[str, object] = {
            "virtual_best": str(against.base.policy),
            "virtual_best_step_budget": against.base.step_budget,
            "virtual_best_ttft_p95_s": against.base.mean_p95_s,
            "virtual_best_slo_attainment": against.base.mean_attainment,
            **dict(zip(("ratio", "ratio_low", "ratio_high"), against.ratio, strict=True)),
            **dict(zip(("difference", "difference_low", "difference_high"), against.difference, strict=True)),
            "counted": int(against.counted),
            "within": int(against.within),
            "non_inferior": int(against.non_inferior),
            "p": against.p,
            "holm_p": against.holm_p,
            "better": int(against.better),
        }
        fields |= {start + name: value for name, value in values.items()}
    return fields
