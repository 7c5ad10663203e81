"""Metrics: by hand on a steady run, again from the rows of requests.csv.gz, and whatever happened to requests."""

import csv
import gzip
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import GapLog, RequestRecord, RunResult
from envs.cluster.gaps import segment
from envs.workload import Workload
from experiments.analysis import metrics as module
from experiments.analysis.csv_files import CELL_COLUMNS, cell, packed_header, packed_rows
from experiments.analysis.metrics import METRIC, METRICS, MeasuredRequests, MeasuredRun, Metric, gpus
from experiments.analysis.request_table import PARTS, RECORD, as_array, measured
from tests.experiments.made_up import CONFIG, many_records, outcome, record, run, workload

END_S = 1000.0


def measure(result: RunResult, requests: Workload) -> dict[str, float]:
    return module.measure(MeasuredRun(result, requests, CONFIG))


def steady(total: int = 100, **changes: float) -> list[RequestRecord]:
    """One request per second, each with the same parts."""
    return [record(i, float(i), [0.4, 0.3, 0.2, 0.1], **changes) for i in range(total)]


# ---- the table of metrics --------------------------------------------------------------------------------------------


def test_every_metric_has_one_name_and_one_row() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {name: METRIC[name] for name in names} == METRIC
    titles = [metric.title for metric in METRICS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_name_of_a_metric_says_its_unit(metric: Metric) -> None:
    assert metric.is_latency == metric.name.endswith("_s")
    if metric.unit == "share":
        assert "share" in metric.name or "attainment" in metric.name
    if metric.unit in ("rps", "bytes", "us"):
        assert metric.unit in metric.name
    assert metric.q is None or metric.sample is not None


@given(many_records())
def test_every_metric_is_a_number_and_a_column_of_cells(rows: list[RequestRecord]) -> None:
    found = measure(run(rows), workload(rows))
    assert CELL_COLUMNS[5:] == list(found) == [metric.name for metric in METRICS]
    assert all(isinstance(value, int | float) for value in found.values())


def test_a_metric_that_is_added_is_measured_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = Metric(
        "prompt_tokens_max", "count", "", "longest prompt", lambda run: int(run.workload.prompt_tokens.max())
    )
    monkeypatch.setattr(module, "METRICS", (*METRICS, longest))
    monkeypatch.setitem(METRIC, longest.name, longest)
    found = measure(run(steady()), workload(steady()))
    assert found[longest.name] == 100
    row = cell(outcome("static", **found))
    assert len(row) == len(CELL_COLUMNS) + 1
    assert row[-1] == 100


# ---- laws ------------------------------------------------------------------------------------------------------------


def read_back(records: np.ndarray, met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Records and attainment, from the rows of requests.csv.gz."""
    packed = packed_header() + packed_rows("static", "w", 1.0, 0, records, met)
    rows = list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    again = np.array([tuple(float(row[name]) for name in RECORD.names or ()) for row in rows]).astype(np.float64)
    table = np.empty(len(rows), dtype=RECORD)
    for column, name in enumerate(RECORD.names or ()):
        table[name] = again[:, column]
    return table, np.array([row["slo_met"] == "1" for row in rows])


@given(many_records())
def test_metrics_of_requests_follow_from_the_rows_of_requests(rows: list[RequestRecord]) -> None:
    measured_run = MeasuredRun(run(rows), workload(rows), CONFIG)
    records, met = read_back(measured_run.all_records, measured_run.attainment.both)
    window = measured(records)
    requests = MeasuredRequests(records[window], met[window], measured_run.result.end_s)
    for metric in METRICS:
        if metric.sample is None:
            continue
        values = metric.sample(requests).astype(np.float64)
        known = values if len(values) else np.array([math.nan])
        expected = known.mean() if metric.q is None else np.quantile(known, metric.q)
        np.testing.assert_equal(metric.of(measured_run), float(expected), err_msg=metric.name)


@given(many_records())
def test_percentiles_are_in_order(rows: list[RequestRecord]) -> None:
    gaps = GapLog()
    for row in rows:
        gaps.append(segment(row.arrival_s, row.output_tokens, row.tbt_max_s + 0.001, 0.0, 1))
    found = measure(run(rows, gaps=gaps), workload(rows))
    for name in ("ttft", "tpot", "e2e"):
        values = [found[f"{name}_p{percent}_s"] for percent in (50, 90, 95, 99)]
        assert all(low <= high for low, high in pairwise(values)) or all(map(math.isnan, values))
    assert found["tbt_p50_s"] <= found["tbt_p95_s"] <= found["tbt_p99_s"]
    assert found["decision_us_p50"] <= found["decision_us_p99"]


@given(many_records())
def test_shares_at_p95_sum_to_one(rows: list[RequestRecord]) -> None:
    found = measure(run(rows), workload(rows))
    total = sum(found[f"{part}_share_p95"] for part in PARTS)
    assert total == pytest.approx(1) or math.isnan(total)


@given(many_records(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(rows: list[RequestRecord], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    in_order, other = (measure(run(order), workload(rows)) for order in (rows, shuffled))
    np.testing.assert_array_equal(list(in_order.values()), list(other.values()))


@given(many_records(least=2))
def test_stuck_requests_miss_and_are_counted(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    window = records[measured(records)]
    found = measure(run(rows), workload(rows))
    assert found["requests"] == len(window)
    assert found["censored"] == np.isnan(window["first_token_s"]).sum()
    assert found["slo_attainment"] <= found["finished_share"]
    assert found["slo_attainment"] <= min(found["ttft_attainment"], found["tbt_attainment"])


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_a_steady_run_by_hand() -> None:
    found = measure(run(steady()), workload(steady()))
    # Arrivals 0 to 99: the first tenth of the span, 9.9 s, is warm-up.
    assert found["requests"] == 90
    assert found["ttft_mean_s"] == pytest.approx(1.0)
    assert found["ttft_p99_s"] == pytest.approx(1.0)
    assert found["tpot_mean_s"] == pytest.approx(0.1)
    assert found["e2e_mean_s"] == pytest.approx(2.0)
    assert found["slo_attainment"] == 1
    assert found["goodput_rps"] == pytest.approx(90 / (99 - 9.9))
    assert found["goodput_rps_per_gpu"] == pytest.approx(found["goodput_rps"] / 4)
    assert [found[f"{part}_share_p95"] for part in PARTS] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found["chunk_steps_over_slo_share"] == pytest.approx(3 / 20)
    assert (found["over_slo_decode_alone"], found["over_slo_minimum"], found["kv_expired"]) == (2, 1, 4)
    assert found["prefix_hit_share"] == 250 / sum(record.prompt_tokens for record in steady())
    assert (found["prefill_busy_share"], found["decode_busy_share"]) == pytest.approx((0.375, 1.0))
    assert found["decision_us_p50"] == pytest.approx(5.5)
    # Last tokens come two seconds after arrivals: from 2 to 101 s.
    assert found["throughput_rps"] == pytest.approx(90 / (99 - 9.9))


def test_warm_up_is_cut_by_arrival_alone() -> None:
    slow_start = [record(i, float(i), [50.0, 0.3, 0.2, 0.1]) for i in range(10)]
    rows = slow_start + steady()[10:]
    assert measure(run(rows), workload(rows))["ttft_p99_s"] == pytest.approx(1.0)


def test_a_request_without_a_first_token_counts_with_the_time_it_waited() -> None:
    rows = [*steady()[:99], record(99, 99.0, [0.5])]
    found = measure(run(rows, end_s=199.0), workload(rows))
    assert found["censored"] == 1
    assert found["finished_share"] == pytest.approx(89 / 90)
    assert found["ttft_mean_s"] == pytest.approx((89 * 1.0 + 100.0) / 90)


def turned_away(request: int) -> RequestRecord:
    return record(request, float(request), [])._replace(prefill_node=-1, decode_node=-1, tbt_max_s=0.0)


def test_a_rejected_request_counts_as_one_without_a_first_token() -> None:
    rows = [*steady(98), turned_away(99), turned_away(98)]
    # The run ends within its TTFT SLO of the last arrival; it is a miss all the same.
    found = measure(run(rows, end_s=100.0), workload(rows))
    assert found["requests"] == 90
    assert (found["rejected"], found["censored"]) == (2, 2)
    assert found["finished_share"] == found["slo_attainment"] == found["ttft_attainment"] == pytest.approx(88 / 90)
    assert found["goodput_rps"] == pytest.approx(88 / (99 - 9.9))
    assert found["ttft_mean_s"] == pytest.approx((88 * 1.0 + 2.0 + 1.0) / 90)
    assert found["deflected_share"] == 0


def test_a_rejected_request_has_no_gap_that_makes_others_look_small() -> None:
    away = [turned_away(i) for i in range(50, 100)]
    rows = [*(record(i, float(i), [0.4, 0.3, 0.2, 0.1], tbt_max_s=i / 100) for i in range(50)), *away]
    served = [rows[i].tbt_max_s for i in range(10, 50)]  # 9.9 s are warm-up
    assert measure(run(rows), workload(rows))["tbt_max_p95_s"] == pytest.approx(np.quantile(served, 0.95))


def test_every_request_is_measured_by_its_slos() -> None:
    rows = steady()
    lenient = workload(rows).with_slos([0.5 if i % 2 else 2.0 for i in range(100)], 0.1)
    assert measure(run(rows), lenient)["slo_attainment"] == pytest.approx(0.5)


def gaps_of(*segments: Sequence[float]) -> GapLog:
    log = GapLog()
    for start_s, steps, first_s, growth_s, weight in segments:
        log.append(segment(start_s, int(steps), first_s, growth_s, int(weight)))
    return log


def test_tbt_is_of_decode_runs_that_began_in_the_window() -> None:
    gaps = gaps_of(
        (5.0, 10, 9.0, 0.0, 1),  # warm-up
        (50.0, 4, 0.02, 0.01, 2),
        (500.0, 10, 9.0, 0.0, 1),  # after the last arrival
    )
    found = measure(run(steady(), gaps=gaps), workload(steady()))
    assert found["tbt_mean_s"] == pytest.approx(0.035)
    assert found["tbt_p99_s"] == pytest.approx(0.05)


def test_one_request_alone_has_no_rate() -> None:
    found = measure(run(steady(1)), workload(steady(1)))
    assert found["requests"] == 1
    assert math.isnan(found["goodput_rps"])
    assert math.isnan(found["tbt_p99_s"])


def test_gpus_of_a_tensor_parallel_profile() -> None:
    four = replace(CONFIG, shape="1P3D", profile=replace(CONFIG.profile, provenance={"tp": 4}))
    assert gpus(four) == 16
    assert gpus(CONFIG) == 4


def test_prefill_nodes_alone_take_a_part_of_the_requests_on_one_node() -> None:
    nodes = [(0, 0), (1, 1), (2, 2), (0, 2), (1, 1)]  # of 2P2D
    rows = [
        one._replace(prefill_node=nodes[i % 5][0], decode_node=nodes[i % 5][1], deflected=len(set(nodes[i % 5])) == 1)
        for i, one in enumerate(steady(100))
    ]
    found = measure(run(rows), workload(rows))
    assert found["deflected_share"] == pytest.approx(4 / 5)
    assert found["aggregated_share"] == pytest.approx(3 / 5)
