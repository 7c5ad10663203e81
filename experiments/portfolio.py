"""Choose the virtual best of each cell: the rule and step budget that a policy has to match.

Reads finished folders of `experiments.compare` on the validation seeds, one or more per TBT SLO and step budget, and
writes into --out: portfolio.json (the best rules of each cell: a workload at a load under a TBT SLO) and summary.md.
docs/protocol.md states the choice. Nothing is simulated.
"""

from dataclasses import dataclass
from pathlib import Path

from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.folders.virtual_best import Portfolio
from experiments.options.parser import CommandOptions, command, option
from experiments.reports.document import claim
from experiments.reports.folders.portfolio_report import write_portfolio


@dataclass(frozen=True, kw_only=True)
class PortfolioOptions(CommandOptions):
    """Options of `experiments.portfolio`."""

    runs: tuple[Path, ...] = option(metavar="FOLDER", help="finished folders of experiments.compare")
    out: Path = option(metavar="DIR", help="where portfolio.json and summary.md are written")


def run(options: PortfolioOptions) -> None:
    """Read the folders, and write the portfolio.

    Raises:
        InputError: folders that are unfinished or do not go together, or a cell without a rule.
    """
    portfolio = Portfolio.of([Folder.read(path, fewest_seeds=1) for path in options.runs])
    claim(options.out, "portfolio", options)
    print(write_portfolio(portfolio, options.typed, options.out))
    print(f"\nwritten to {options.out}: portfolio.json, summary.md")


if __name__ == "__main__":
    command(PortfolioOptions, run, "portfolio", __doc__)
