"""The folder of a comparison: whose it is, and what is written into it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import policies
from experiments import report
from experiments.cells import Outcome
from experiments.groups import grouped
from experiments.html import write_html
from experiments.illustrate import illustrate
from experiments.leaders import ATTAINMENT, P95, came_out
from experiments.overview import matrix
from experiments.tables import write_cells, write_requests
from hardware_profiles import InputError
from hardware_profiles.files import replacing


def claim(folder: Path, command: Mapping[str, object]) -> None:
    """Make `folder` this command's own.

    Raises:
        InputError: it holds cells of another command.
    """
    note = folder / "command.json"
    text = json.dumps(command, indent=1, default=str) + "\n"
    if note.exists() and note.read_text() != text and any((folder / "cells").glob("*")):
        raise InputError(f"{folder} holds the cells of another command (see {note}); give another --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(note) as temporary:
        temporary.write_text(text)


def commit() -> str:
    """The commit of the code, "-dirty" if it was changed since; "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_report(summary: str, figures: Sequence[Path], folder: Path) -> None:
    """Write summary.md, and the same as one page, report.html, with the figures in it."""
    with replacing(folder / "summary.md") as path:
        path.write_text(summary, encoding="utf-8")
    write_html(summary, figures, folder / "report.html")


def write_all(
    outcomes: Sequence[Outcome],
    title: str,
    about: Sequence[str],
    ttft_slo_s: Mapping[str, float],
    load_is: str,
    folder: Path,
    *,
    cells_name: str = "cells.csv",
    bases: Sequence[str] = (),
    made_by: Sequence[str] = (),
) -> str:
    """Write `cells_name`, requests.csv.gz, figures/, summary.md and report.html into `folder`.

    Args:
        outcomes: all cells.
        title: heading of the summary.
        about: what was run, a line of Markdown each.
        ttft_slo_s: drawn in the figures, seconds; of each workload that has one TTFT SLO for all requests.
        load_is: what a load is, for an axis.
        folder: where to write.
        cells_name: name of the file with a row a cell.
        bases: policies that the others are compared with; none: static, or the first.
        made_by: the foot of the summary, see `provenance.made_by`.

    Returns:
        What came out and the main tables, to print.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_cells(outcomes, folder / cells_name)
    write_requests(outcomes, folder / "requests.csv.gz")
    groups = grouped(outcomes)
    pictures = illustrate(groups, ttft_slo_s, load_is, folder / "figures")
    text = report.summary(title, about, groups, bases, pictures, made_by)
    write_report(text, [one.path for drawn in pictures.values() for one in drawn], folder)
    parts = [came_out(groups), *(f"{each.title}:\n{matrix(groups, each)}" for each in (P95, ATTAINMENT))]
    parts.append(f"Steps over the TBT SLO. {report.CHUNK_STEPS}\n{report.chunk_steps(groups)}")
    parts += [f"against {policies.label(base)}:\n{report.differences(groups, base)}" for base in bases]
    # Marks of bold type and of code are for the page.
    return "\n\n".join(filter(None, parts)).replace("**", "").replace("`", "")
