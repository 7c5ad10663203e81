"""Assess policies against the virtual best of each cell: margins, non-inferiority, Holm's correction.

Reads a portfolio of `experiments.portfolio` and finished folders of `experiments.compare` on the test seeds, which
hold the policies and the virtual best of each of their cells. Writes into --out: assessment.csv (one row per policy
and cell), summary.md, report.html, figures/ratios.png and figures/placements-POLICY.png.
docs/protocol.md states the rules. Nothing is simulated.
"""

from dataclasses import dataclass
from pathlib import Path

from experiments.analysis.folders.assessment import ENGINE_BUDGET, MARGINS, MarginSet, assess, check_labels
from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.folders.placement_shares import placement_shares
from experiments.analysis.folders.virtual_best import Portfolio, gather
from experiments.options.parser import CommandOptions, command, option
from experiments.reports.document import claim
from experiments.reports.folders.assessment_report import write_assessment


@dataclass(frozen=True, kw_only=True)
class AssessOptions(CommandOptions):
    """Options of `experiments.assess`."""

    portfolio: Path = option(
        metavar="FILE", help="portfolio.json of experiments.portfolio; shipped: the one that comes with the project"
    )
    runs: tuple[Path, ...] = option(metavar="FOLDER", help="finished folders of experiments.compare")
    policies: tuple[str, ...] = option(
        metavar="LABEL",
        help=f"policies to assess, by their labels in cells.csv; under step budget {ENGINE_BUDGET} if they were run "
        "under several",
    )
    margins: MarginSet = option(
        "main",
        help="; ".join(f"{name}: {margins}" for name, margins in MARGINS.items()),
    )
    out: Path = option(metavar="DIR", help="where assessment.csv, summary.md, report.html and figures/ are written")


def run(options: AssessOptions) -> None:
    """Read the portfolio and the folders, and write the assessment.

    Raises:
        InputError: folders that are unfinished or do not go together or with the portfolio, a label that no folder has,
            or a cell without a policy or its virtual best.
    """
    portfolio = Portfolio.read(options.portfolio)
    folders = [Folder.read(path, fewest_seeds=2) for path in options.runs]
    for folder in folders:
        portfolio.check(folder)
    runs = gather(folders)
    check_labels(options.policies, runs)
    margins = MARGINS[options.margins]
    found = {label: assess(label, runs, portfolio, margins) for label in options.policies}
    claim(options.out, "assess", options)
    placed = {
        label: placement_shares(folders, label, several[0].policy.step_budget) for label, several in found.items()
    }
    print(write_assessment(found, portfolio, margins, folders[0].seeds, placed, options.typed, options.out))
    print(f"\nwritten to {options.out}: assessment.csv, summary.md, report.html, figures/")


if __name__ == "__main__":
    command(AssessOptions, run, "assess", __doc__)
