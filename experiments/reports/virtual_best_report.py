"""Reports on the virtual best: which rule it is in each cell, and how policies compare with it."""

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
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
from experiments.analysis.folders.virtual_best import Cell, Portfolio, Ranked
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, code, each, plain, table
from experiments.reports.document import Picture, Section, commit, for_console, write_json, write_report
from experiments.reports.figures.assessment_figures import Square, ratios
from experiments.reports.figures.placement_figures import shares
from hardware_profiles.files import replacing

_RULE = (
    "The virtual best of a cell (a workload at a load under a TBT SLO) is the rule and step budget with the lowest "
    f"mean P95 TTFT among those within {100 * ATTAINMENT_MARGIN:g} point of the highest mean SLO attainment."
)
_three = partial(show.with_interval, show="{:.3f}".format)
_points = partial(show.with_interval, show="{:+.2f}".format)


def _cells() -> list[Column[Cell]]:
    return [
        Column("workload", lambda cell: plain(cell.workload), left=True),
        Column("load", lambda cell: f"{cell.load:g}"),
    ]


def _ms(tbt_slo_s: float) -> str:
    return f"{1e3 * tbt_slo_s:g} ms"


def _made_by(typed: str, portfolio: Portfolio, seeds: Sequence[int]) -> str:
    return bullets([
        f"command {code(typed)}",
        f"commit {code(commit())}; Python {platform.python_version()}, NumPy {version('numpy')}",
        f"cluster {plain(str(portfolio.options.get('cluster')))} of {code(str(portfolio.options.get('profile')))}",
        f"seeds {min(seeds)} to {max(seeds)}",
    ])  # fmt: skip


def write_portfolio(portfolio: Portfolio, typed: str, folder: Path) -> str:
    """Write portfolio.json and summary.md into `folder`, which must exist; returns the tables, to print."""
    write_json({"command": typed, "commit": commit(), **portfolio.contents()}, folder / "portfolio.json")
    tables = [_names(portfolio), *_bests(portfolio)]
    parts = ["# The virtual best of each cell", _RULE, *tables]
    parts += ["---\n\n## How this was made", _made_by(typed, portfolio, portfolio.seeds)]
    with replacing(folder / "summary.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return for_console(*tables)


def _names(portfolio: Portfolio) -> str:
    """How many cells each rule is the virtual best of, by TBT SLO."""
    counts: dict[tuple[str, str], dict[float, int]] = {}
    for cell, one in portfolio.cells.items():
        best = one.candidates[0]
        of_rule = counts.setdefault((best.spec.label, best.step_budget), {})
        of_rule[cell.tbt_slo_s] = of_rule.get(cell.tbt_slo_s, 0) + 1
    order = sorted(counts, key=lambda rule: -sum(counts[rule].values()))
    slos = {_ms(slo_s): slo_s for slo_s in sorted({cell.tbt_slo_s for cell in portfolio.cells})}
    columns: list[Column[tuple[str, str]]] = [
        Column("virtual best", lambda rule: code(rule[0]), left=True),
        Column("step budget", lambda rule: rule[1], left=True),
        *each(slos, lambda slo_s, rule: str(counts[rule].get(slo_s, 0))),
        Column("cells", lambda rule: str(sum(counts[rule].values()))),
    ]
    return f"## Cells by virtual best\n\n{table(columns, order)}"


def _bests(portfolio: Portfolio) -> list[str]:
    """One table per TBT SLO."""

    def best(cell: Cell) -> Ranked:
        return portfolio.cells[cell].candidates[0]

    def following(cell: Cell) -> str:
        first, *others = portfolio.cells[cell].candidates
        if not others:
            return "none"
        return f"{_name(others[0])} {show.signed('{:.1f}'.format)(100 * (others[0].ttft_p95_s / first.ttft_p95_s - 1))}"

    columns: list[Column[Cell]] = [
        *_cells(),
        Column("requests/s", lambda cell: f"{portfolio.cells[cell].rate_rps:.2f}"),
        Column("virtual best", lambda cell: code(best(cell).spec.label), left=True),
        Column("step budget", lambda cell: best(cell).step_budget, left=True),
        Column("TTFT P95 (ms)", lambda cell: show.ms(best(cell).ttft_p95_s)),
        Column("SLO attainment (%)", lambda cell: show.percent(best(cell).slo_attainment)),
        Column("next, TTFT P95 against it (%)", following, left=True),
    ]
    slos_s = dict.fromkeys(cell.tbt_slo_s for cell in portfolio.cells)
    return [
        f"## TBT SLO {_ms(slo_s)}\n\n{table(columns, [cell for cell in portfolio.cells if cell.tbt_slo_s == slo_s])}"
        for slo_s in slos_s
    ]


def _name(one: Ranked) -> str:
    return f"{code(one.spec.label)} {one.step_budget}"


class _Total(NamedTuple):
    policy: str
    chosen_on: str
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
        ("## Counted cells outside the margins", [lost]),
        ("## Every cell", [heat_map]),
        *([("## Where requests are placed", list(where))] if where else []),
        ("## Cells that are not counted", [_compared(uncounted)]),
        ("## How to read it", [_reading(margins)]),
        ("---\n\n## How this was made", [_made_by(typed, portfolio, seeds)]),
    ]
    write_report("Policies against the virtual best", sections, folder)
    return for_console(size, f"Totals:\n{sums}", f"Counted cells outside the margins of {margins}:\n{lost}")


def _outside(one: Assessed) -> bool:
    return one.outside


def _uncounted(one: Assessed) -> bool:
    return not one.chosen.counted


def _reading(margins: Margins) -> str:
    return bullets([
        f'{_RULE} "Validation": chosen on the seeds of the portfolio, measured on the seeds of this report. "Test": '
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

    def worst(value: float, text: str, cell: Cell) -> str:
        return f"{text.format(value)} ({plain(str(cell))})"

    columns: list[Column[_Total]] = [
        Column("policy", lambda row: code(row.policy), left=True),
        Column("virtual best chosen on", lambda row: row.chosen_on, left=True),
        Column("cells counted", lambda row: f"{row.totals.counted} of {row.totals.cells}"),
        Column("within the margins", lambda row: f"{row.totals.within} of {row.totals.counted}"),
        Column("non-inferior", lambda row: f"{row.totals.non_inferior} of {row.totals.counted}"),
        Column("at or below", lambda row: f"{row.totals.at_or_below} of {row.totals.cells}"),
        Column("better", lambda row: f"{row.totals.better} of {row.totals.cells}"),
        Column("TTFT P95 / virtual best, geometric mean", lambda row: _three(row.totals.ratio)),
        Column("highest ratio", lambda row: worst(row.totals.worst[0], "{:.3f}", row.totals.worst[1])),
        Column(
            "largest loss of attainment (points)",
            lambda row: worst(100 * row.totals.worst_loss[0], "{:+.2f}", row.totals.worst_loss[1]),
        ),
    ]
    return table(columns, rows)


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
