import csv
import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given

from envs.cluster import RequestRecord
from experiments.cells import Cell, run_cells
from experiments.metrics import RECORD, as_array
from experiments.request_rows import COLUMNS, packed_header, packed_rows
from experiments.tables import write_requests
from experiments.tally import PROMPT_BUCKETS, Tally
from tests.experiments.made_up import CONFIG, many_records
from tests.experiments.test_cells import toy_workload


@given(many_records())
def test_rows_say_all_of_the_records(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    met = records["arrival_s"] > records["arrival_s"].mean()
    packed = packed_header() + packed_rows('a:knob=1,other="x"', "two words", 0.5, 3, records, met)
    read = list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    assert list(read[0]) == COLUMNS
    assert {(row["policy"], row["workload"], row["load"], row["seed"]) for row in read} == {
        ('a:knob=1,other="x"', "two words", "0.5", "3")
    }
    for name in RECORD.names or ():
        column = np.array([float(row[name]) for row in read])
        assert np.array_equal(column, records[name].astype(float), equal_nan=True)
    assert [row["slo_met"] == "1" for row in read] == met.tolist()


def test_the_file_is_the_cells_one_after_the_other(tmp_path: Path) -> None:
    outcomes = run_cells([Cell(name, "toy", 1.0, 0) for name in ("static", "random")], toy_workload, CONFIG, tmp_path)
    path = tmp_path / "requests.csv.gz"
    write_requests(outcomes, path)
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], int(row["request"])) for row in rows] == [
        (name, request) for name in ("static", "random") for request in range(40)
    ]


@given(many_records(least=5))
def test_a_tally_counts_every_measured_request_once(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    records["prompt_tokens"] = np.resize([1, 512, 513, 8192, 8193], len(records))
    records["arrival_s"] = 1.0  # no warm-up
    tally = Tally.of(records, 100.0)
    assert len(tally.prompts) == len(PROMPT_BUCKETS) + 1
    edges = [0, *PROMPT_BUCKETS, np.inf]
    for bucket, (low, high) in enumerate(pairwise(edges)):
        inside = (records["prompt_tokens"] > low) & (records["prompt_tokens"] <= high)
        assert tally.prompts[bucket] == inside.sum()
        assert tally.deflected[bucket] == records["deflected"][inside].sum()
    moved = records.copy()
    moved["prompt_tokens"][0] += 1
    assert Tally.of(moved, 100.0).requests != tally.requests
    moved["prompt_tokens"][0] -= 1
    moved["first_token_s"] += 1.0
    assert Tally.of(moved, 100.0).requests == tally.requests
