"""Map which kind of rule has the lowest P95 TTFT, by workload, load, TBT SLO and step budget.

Reads finished folders of `experiments.compare` and writes into --out: map.csv (one row per criterion and condition),
map.md (a Markdown fragment with the tables) and figures/*.png. Folders with the same TBT SLO and step budget are
merged: they hold other rules on the same requests.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.map_conditions import Contests, Criterion, contest, merge
from experiments.options.parser import CommandOptions, command, option
from experiments.reports.columns import around_marks
from experiments.reports.folders.map_report import write_map
from hardware_profiles.files import replacing

BEGIN = "<!-- experiments.map writes from here -->"
END = "<!-- experiments.map writes to here -->"


@dataclass(frozen=True, kw_only=True)
class MapOptions(CommandOptions):
    """Options of `experiments.map`."""

    folders: tuple[Path, ...] = option(
        metavar="FOLDER", help="finished folders of experiments.compare", positional=True
    )
    out: Path = option(metavar="DIR", help="where map.csv, map.md and figures/ are written")
    page: Path | None = option(
        None, metavar="FILE", help=f"also replace the part of this page between {BEGIN!r} and {END!r}"
    )


def run(options: MapOptions) -> None:
    """Read the folders, and write the map.

    Raises:
        InputError: folders that are unfinished or do not go together, rules of unknown kind, or a page without marks.
    """
    folders = [Folder.read(path) for path in options.folders]
    conditions = merge(folders)
    by_criterion: dict[Criterion, Contests] = {
        name: {condition: contest(rules, name) for condition, rules in conditions.items()}
        for name in get_args(Criterion)
    }
    around = around_marks(options.page, BEGIN, END) if options.page else None
    text = write_map(folders, by_criterion, options.out)
    if options.page and around:
        with replacing(options.page) as temporary:
            temporary.write_text(f"{around[0]}\n\n{text}\n{around[2]}", encoding="utf-8")
    print(f"written to {options.out}: map.csv, map.md, figures/")


if __name__ == "__main__":
    command(MapOptions, run, "map", __doc__)
