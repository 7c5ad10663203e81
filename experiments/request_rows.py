"""The rows of requests.csv.gz: a row a request, one gzip member a cell.

Members that follow each other are one gzip file, so each cell packs its own rows where it runs, and the file of a whole
comparison is its cells' members one after the other.
"""

import csv
import gzip
import io

import numpy as np
from numpy.typing import NDArray

import policies
from envs.cluster import RequestRecord
from experiments.metrics import Records

# The contracted columns first; what tells cells of several workloads apart follows.
COLUMNS = ["policy", "seed", *RequestRecord._fields, "slo_met", "workload", "load"]
# A thousand requests: 3 ms at level 1, 13 ms at level 6, for a tenth fewer bytes.
_LEVEL = 1


def packed_header() -> bytes:
    """The first member: the names of the columns."""
    return _packed(_line(COLUMNS) + "\n")


def packed_rows(policy: str, workload: str, load: float, seed: int, records: Records, met: NDArray[np.bool_]) -> bytes:
    """The member of a cell; equal records give equal bytes.

    Floats are written in full, so that every number of cells.csv can be computed again from here.

    Args:
        policy: as given; its label is written.
        workload: of the cell.
        load: of the cell.
        seed: of the cell.
        records: what happened to each request.
        met: whether each met both its SLOs.
    """
    columns = [*(records[name] for name in RequestRecord._fields), met]
    # Truths as 0 and 1, which every reader can add up. No number needs quotes, so rows need no CSV writer.
    cells = [map(repr, (column.astype(int) if column.dtype == bool else column).tolist()) for column in columns]
    before, after = _line([policies.label(policy), seed]), _line([workload, load])
    return _packed("".join([f"{before},{','.join(row)},{after}\n" for row in zip(*cells, strict=True)]))


def _line(values: list[object] | list[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(values)
    return file.getvalue()


def _packed(text: str) -> bytes:
    # No time in the header, or two runs would differ.
    return gzip.compress(text.encode(), _LEVEL, mtime=0)
