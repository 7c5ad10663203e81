"""The report of a portfolio: which rule is the virtual best of each cell."""

from pathlib import Path

from experiments.analysis.folders.virtual_best import Cell, Portfolio, Ranked
from experiments.reports import formatting as show
from experiments.reports.columns import Column, code, each, plain, table
from experiments.reports.document import commit, for_console, write_json
from experiments.reports.folders.virtual_best_text import RULE, made_by, slo_ms
from hardware_profiles.files import replacing


def write_portfolio(portfolio: Portfolio, typed: str, folder: Path) -> str:
    """Write portfolio.json and summary.md into `folder`, which must exist; returns the tables, to print."""
    write_json({"command": typed, "commit": commit(), **portfolio.contents()}, folder / "portfolio.json")
    tables = [_names(portfolio), *_bests(portfolio)]
    parts = ["# The virtual best of each cell", RULE, *tables]
    parts += ["---\n\n## How this was made", made_by(typed, portfolio, portfolio.seeds)]
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
    slos = {slo_ms(slo_s): slo_s for slo_s in sorted({cell.tbt_slo_s for cell in portfolio.cells})}
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
        Column("workload", lambda cell: plain(cell.workload), left=True),
        Column("load", lambda cell: f"{cell.load:g}"),
        Column("requests/s", lambda cell: f"{portfolio.cells[cell].rate_rps:.2f}"),
        Column("virtual best", lambda cell: code(best(cell).spec.label), left=True),
        Column("step budget", lambda cell: best(cell).step_budget, left=True),
        Column("TTFT P95 (ms)", lambda cell: show.ms(best(cell).ttft_p95_s)),
        Column("SLO attainment (%)", lambda cell: show.percent(best(cell).slo_attainment)),
        Column("next, TTFT P95 against it (%)", following, left=True),
    ]
    slos_s = dict.fromkeys(cell.tbt_slo_s for cell in portfolio.cells)
    return [
        f"## TBT SLO {slo_ms(slo_s)}\n\n{table(columns, [cell for cell in portfolio.cells if cell.tbt_slo_s == slo_s])}"
        for slo_s in slos_s
    ]


def _name(one: Ranked) -> str:
    return f"{code(one.spec.label)} {one.step_budget}"
