"""`python -m experiments.map FOLDER [FOLDER ...]`: where disaggregation pays, from finished comparisons.

Reads folders of `experiments.compare` and writes into --out: map.csv (one row per criterion and condition), map.md (a
Markdown fragment with the tables) and figures/*.png. Folders with the same TBT SLO and step budget are merged: they
hold other rules on the same requests.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from experiments.map import figures
from experiments.map.folders import Folder, merge
from experiments.map.report import TITLES, fragment, write_csv
from experiments.map.winners import Contests, Criterion, contests
from hardware_profiles import InputError
from hardware_profiles.cli import Parser
from hardware_profiles.files import replacing

BEGIN = "<!-- experiments.map writes from here -->"
END = "<!-- experiments.map writes to here -->"


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m experiments.map", description="Map where disaggregation pays.")
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="a finished folder of experiments.compare")
    add("--out", type=Path, required=True, metavar="DIR", help="where map.csv, map.md and figures/ are written")
    add("--page", type=Path, metavar="FILE", help=f"also replace what this page has between {BEGIN!r} and {END!r}")
    return parser.parse_args(argv)


def draw_map(args: Namespace) -> None:
    """Read the folders, and write the map.

    Raises:
        InputError: folders that are unfinished or do not go together, rules of unknown kind, or a page without marks.
    """
    folders = [Folder.read(path) for path in dict.fromkeys(args.folders)]
    conditions = merge(folders)
    by_criterion: dict[Criterion, Contests] = {name: contests(conditions, name) for name in get_args(Criterion)}
    text = fragment(folders, by_criterion)
    page = _replaced(args.page, text) if args.page else None
    pictures = args.out / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    write_csv(by_criterion, args.out / "map.csv")
    _write(text, args.out / "map.md")
    for criterion, found in by_criterion.items():
        figures.winners(found, TITLES[criterion], pictures / f"map-winners-{criterion}.png")
        figures.ratios(found, TITLES[criterion], pictures / f"map-ratios-{criterion}.png")
    if page is not None:
        _write(page, args.page)
    print(f"written to {args.out}: map.csv, map.md, figures/")


def _replaced(page: Path, text: str) -> str:
    """The page with `text` between its two marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: needs the lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def _write(text: str, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
