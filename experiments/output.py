"""The folder of a comparison: whose it is, and what is written into it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import policies
from experiments import report
from experiments.cells import Outcome
from experiments.illustrate import illustrate
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


def write_all(
    outcomes: Sequence[Outcome],
    title: str,
    about: Sequence[str],
    ttft_slo_s: float,
    load_is: str,
    folder: Path,
    *,
    cells_name: str = "cells.csv",
    bases: Sequence[str] = (),
) -> str:
    """Write `cells_name`, requests.csv.gz, summary.md and figures/ into `folder`.

    Args:
        outcomes: all cells.
        title: heading of the summary.
        about: what was run, a line each.
        ttft_slo_s: drawn in the figures, seconds.
        load_is: what a load is, for an axis.
        folder: where to write.
        cells_name: name of the file with a row a cell.
        bases: policies that the others are compared with; none: static, or the first.

    Returns:
        The main tables, to print.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_cells(outcomes, folder / cells_name)
    write_requests(outcomes, folder / "requests.csv.gz")
    groups = report.grouped(outcomes)
    with replacing(folder / "summary.md") as path:
        path.write_text(report.summary(title, about, groups, bases))
    illustrate(groups, ttft_slo_s, load_is, folder / "figures")
    against = bases or [report.base_of(next(iter(groups.values())))]
    differences = [
        f"against {policies.label(base)}:\n{table}" for base in against if (table := report.differences(groups, base))
    ]
    return "\n\n".join([report.results(groups), *differences])
