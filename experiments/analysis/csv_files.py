"""The CSV files of a comparison: cells.csv, one row per run, and requests.csv.gz, one row per request.

requests.csv.gz has one gzip member per run; members that follow each other form one gzip file. Each run packs its rows
where it runs, and the file of a whole comparison is the members of its runs one after the other.
"""

import csv
import gzip
import io
from collections.abc import Iterable
from pathlib import Path

from envs.cluster import RequestRecord
from experiments.analysis.metrics import METRIC
from experiments.analysis.outcome import Outcome
from experiments.analysis.request_table import Flags, Records
from hardware_profiles.files import replacing

CELL_COLUMNS = ["policy", "workload", "load", "seed", "rate_rps", *METRIC]
# The columns that other projects rely on come first; those that identify runs of several workloads follow.
REQUEST_COLUMNS = ["policy", "seed", *RequestRecord._fields, "slo_met", "workload", "load"]
# A thousand requests take 3 ms at level 1 and 13 ms at level 6, for a tenth fewer bytes.
_LEVEL = 1


def packed_header() -> bytes:
    """The first member: the names of the columns."""
    return packed([REQUEST_COLUMNS])


def packed_rows(policy: str, workload: str, load: float, seed: int, records: Records, met: Flags) -> bytes:
    """The member of one run; equal records give equal bytes.

    Floats are written in full, so that every number of cells.csv can be computed again from here. `policy` is its
    label; `met` says of each request whether it met both its SLOs.
    """
    columns = [*(records[name] for name in RequestRecord._fields), met]
    # Booleans as 0 and 1, which every reader can add up.
    values = [(column.astype(int) if column.dtype == bool else column).tolist() for column in columns]
    return packed((policy, seed, *row, workload, load) for row in zip(*values, strict=True))


def packed(rows: Iterable[Iterable[object]], level: int = _LEVEL) -> bytes:
    """Rows as one gzip member of CSV; equal rows give equal bytes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode(), level, mtime=0)  # with a time, two equal runs would differ


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file, whole or not at all; floats in full, nan if there was nothing to measure."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def cell(outcome: Outcome) -> list[object]:
    """An outcome as a row of cells.csv, see CELL_COLUMNS."""
    key = [outcome.policy.label, outcome.workload, outcome.load, outcome.seed, outcome.rate_rps]
    return [*key, *(outcome.metrics[name] for name in METRIC)]


def write_requests(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write a gzipped CSV file with every request of every run, from the members that the runs packed."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(packed_header())
        for outcome in outcomes:
            file.write(outcome.path.with_suffix(".csv.gz").read_bytes())
