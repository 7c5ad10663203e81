"""requests.csv.gz says everything of the records, and its members join to one file."""

import csv
import gzip
from pathlib import Path

import numpy as np
from hypothesis import given

from envs.cluster import RequestRecord
from experiments.analysis.csv_files import REQUEST_COLUMNS, packed_header, packed_rows, write_requests
from experiments.analysis.request_table import RECORD, as_array
from experiments.runs.cache import Cache
from experiments.runs.trial import run_trials
from tests.experiments.made_up import many_records, trial


@given(many_records())
def test_rows_say_all_of_the_records(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    met = records["arrival_s"] > records["arrival_s"].mean()
    packed = packed_header() + packed_rows('a:knob=1,other="x"', "two words", 0.5, 3, records, met)
    read = list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    assert list(read[0]) == REQUEST_COLUMNS
    assert {(row["policy"], row["workload"], row["load"], row["seed"]) for row in read} == {
        ('a:knob=1,other="x"', "two words", "0.5", "3")
    }
    for name in RECORD.names or ():
        column = np.array([float(row[name]) for row in read])
        assert np.array_equal(column, records[name].astype(float), equal_nan=True)
    assert [row["slo_met"] == "1" for row in read] == met.tolist()


@given(many_records())
def test_equal_records_give_equal_bytes(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    met = records["deflected"]
    assert packed_rows("a", "w", 1.0, 0, records, met) == packed_rows("a", "w", 1.0, 0, records.copy(), met.copy())


def test_the_file_is_the_runs_one_after_the_other(tmp_path: Path) -> None:
    outcomes = run_trials([trial(name) for name in ("static", "random")], Cache(tmp_path / "runs"))
    path = tmp_path / "requests.csv.gz"
    write_requests(outcomes, path)
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], int(row["request"])) for row in rows] == [
        (name, request) for name in ("static", "random") for request in range(40)
    ]
