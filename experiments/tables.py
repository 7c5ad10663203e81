"""The two tables of a comparison: a row a cell (cells.csv), a row a request (requests.csv.gz)."""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path

import policies
from envs.cluster import RequestRecord
from experiments.cells import Cell, Outcome
from experiments.metrics import Metrics
from hardware_profiles.files import replacing

CELL_COLUMNS = [*Cell._fields, "rate_rps", *Metrics.names()]
# The contracted columns first; what tells cells of several workloads apart follows.
REQUEST_COLUMNS = ["policy", "seed", *RequestRecord._fields, "slo_met", "workload", "load"]


def write_cells(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write a CSV file with a row a cell; floats in full, nan where there was nothing to measure."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(CELL_COLUMNS)
        rows.writerows(
            [policies.label(out.cell.policy), *out.cell[1:], out.rate_rps, *astuple(out.metrics)] for out in outcomes
        )


def write_requests(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a gzipped CSV file with every request of every cell; equal records give equal bytes.

    Floats are written in full, so that every number of cells.csv can be computed again from here.
    """
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        # No name and no time in the header, or two runs would differ.
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(REQUEST_COLUMNS)
        for out in outcomes:
            cell = out.cell
            records, met = out.requests
            columns = [*(records[name] for name in RequestRecord._fields), met]
            # Truths as 0 and 1, which every reader can add up.
            plain = [(column.astype(int) if column.dtype == bool else column).tolist() for column in columns]
            name = policies.label(cell.policy)
            rows.writerows([name, cell.seed, *row, cell.workload, cell.load] for row in zip(*plain, strict=True))
