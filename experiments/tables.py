"""The two tables of a comparison: a row a cell (cells.csv), a row a request (requests.csv.gz)."""

import csv
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import policies
from experiments.cells import Cell, Outcome
from experiments.metrics import Metrics
from experiments.request_rows import packed_header
from hardware_profiles.files import replacing

CELL_COLUMNS = [*Cell._fields, "rate_rps", *Metrics.names()]


def write_cells(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write a CSV file with a row a cell; floats in full, nan where there was nothing to measure."""
    values = attrgetter(*Metrics.names())
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(CELL_COLUMNS)
        rows.writerows(
            [policies.label(out.cell.policy), *out.cell[1:], out.rate_rps, *values(out.metrics)] for out in outcomes
        )


def write_requests(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write a gzipped CSV file with every request of every cell, from the parts that the cells packed."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(packed_header())
        for out in outcomes:
            file.write(out.packed_rows)
