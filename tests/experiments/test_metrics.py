import math
from dataclasses import astuple, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import GapLog, RequestRecord
from envs.cluster.gaps import segment
from experiments.metrics import (
    PARTS,
    RECORD,
    Attainment,
    Metrics,
    as_array,
    gpus,
    measure,
    measured,
    parts_at_quantile_s,
    ttft_parts_s,
    ttft_s,
)
from tests.experiments.made_up import CONFIG, many_records, record, run, workload

END_S = 1000.0


def steady(total: int = 100, **changes: object) -> list[RequestRecord]:
    """One request a second, each with the same parts."""
    return [record(i, float(i), [0.4, 0.3, 0.2, 0.1], **changes) for i in range(total)]


def test_columns_are_the_records_own() -> None:
    assert RECORD.names == RequestRecord._fields


@given(many_records())
def test_parts_sum_to_ttft_also_of_requests_that_got_stuck(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    parts_s = ttft_parts_s(records, END_S)
    assert parts_s.shape == (len(rows), len(PARTS))
    assert (parts_s >= 0).all()
    np.testing.assert_allclose(parts_s.sum(axis=1), ttft_s(records, END_S), rtol=1e-12, atol=1e-12)


@given(many_records())
def test_shares_at_p95_sum_to_one(rows: list[RequestRecord]) -> None:
    found = measure(run(rows), workload(rows), CONFIG)
    total = sum(getattr(found, f"{part}_share_p95") for part in PARTS)
    assert total == pytest.approx(1) or math.isnan(total)


@given(many_records(), st.randoms())
def test_the_order_of_records_does_not_matter(rows: list[RequestRecord], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    in_order, other = (measure(run(order), workload(rows), CONFIG) for order in (rows, shuffled))
    np.testing.assert_array_equal(astuple(in_order), astuple(other))


@given(many_records(), st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_attainment_rises_with_the_slo(
    rows: list[RequestRecord], ttft_slo_s: tuple[float, float], tbt_slo_s: tuple[float, float]
) -> None:
    records = as_array(rows)
    strict = Attainment.of(records, min(ttft_slo_s), min(tbt_slo_s))
    loose = Attainment.of(records, max(ttft_slo_s), max(tbt_slo_s))
    assert (strict.ttft <= loose.ttft).all()
    assert (strict.tbt <= loose.tbt).all()
    assert (strict.both == (strict.ttft & strict.tbt)).all()


@given(many_records(least=2))
def test_stuck_requests_miss_and_are_counted(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    window = records[measured(records)]
    found = measure(run(rows), workload(rows), CONFIG)
    assert found.requests == len(window)
    assert found.censored == np.isnan(window["first_token_s"]).sum()
    assert found.slo_attainment <= found.finished_share


def test_a_steady_run_by_hand() -> None:
    found = measure(run(steady()), workload(steady()), CONFIG)
    # Arrivals 0 to 99: the first tenth of the span, 9.9 s, is warm-up.
    assert found.requests == 90
    assert found.ttft_mean_s == pytest.approx(1.0)
    assert found.ttft_p99_s == pytest.approx(1.0)
    assert found.tpot_mean_s == pytest.approx(0.1)
    assert found.e2e_mean_s == pytest.approx(2.0)
    assert found.slo_attainment == 1
    assert found.goodput_rps == pytest.approx(90 / (99 - 9.9))
    assert found.goodput_rps_per_gpu == pytest.approx(found.goodput_rps / 4)
    assert [getattr(found, f"{part}_share_p95") for part in PARTS] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found.chunk_steps_over_slo_share == pytest.approx(3 / 20)
    assert (found.over_slo_decode_alone, found.over_slo_minimum, found.kv_expired) == (2, 1, 4)
    assert found.prefix_hit_share == 250 / sum(record.prompt_tokens for record in steady())
    assert (found.prefill_busy_share, found.decode_busy_share) == pytest.approx((0.375, 1.0))
    assert found.decision_us_p50 == pytest.approx(5.5)


def test_warm_up_is_cut_by_arrival_alone() -> None:
    slow_start = [record(i, float(i), [50.0, 0.3, 0.2, 0.1]) for i in range(10)]
    rows = slow_start + steady()[10:]
    assert measure(run(rows), workload(rows), CONFIG).ttft_p99_s == pytest.approx(1.0)


def test_a_request_without_a_first_token_counts_with_the_time_it_waited() -> None:
    rows = [*steady()[:99], record(99, 99.0, [0.5])]
    found = measure(run(rows, end_s=199.0), workload(rows), CONFIG)
    assert found.censored == 1
    assert found.finished_share == pytest.approx(89 / 90)
    assert found.ttft_mean_s == pytest.approx((89 * 1.0 + 100.0) / 90)
    # What it waited in is where it was: in execution, after half a second in the queue.
    assert ttft_parts_s(as_array(rows), 199.0)[-1] == pytest.approx([0.5, 99.5, 0, 0])


def test_a_rejected_request_counts_as_one_that_never_got_its_first_token() -> None:
    away = record(99, 99.0, [])._replace(prefill_node=-1, decode_node=-1, tbt_max_s=0.0)
    rows = [*steady(98), away, away._replace(request=98, arrival_s=98.0)]
    # The run ends within its TTFT SLO of the last arrival; it is a miss all the same.
    found = measure(run(rows, end_s=100.0), workload(rows), CONFIG)
    assert found.requests == 90
    assert (found.rejected, found.censored) == (2, 2)
    assert found.finished_share == found.slo_attainment == found.ttft_attainment == pytest.approx(88 / 90)
    assert found.goodput_rps == pytest.approx(88 / (99 - 9.9))
    assert found.ttft_mean_s == pytest.approx((88 * 1.0 + 2.0 + 1.0) / 90)
    assert found.deflected_share == 0


def test_a_rejected_request_has_no_gap_that_makes_the_others_look_small() -> None:
    away = [record(i, float(i), [])._replace(prefill_node=-1, decode_node=-1, tbt_max_s=0.0) for i in range(50, 100)]
    rows = [*(record(i, float(i), [0.4, 0.3, 0.2, 0.1], tbt_max_s=i / 100) for i in range(50)), *away]
    served = [rows[i].tbt_max_s for i in range(10, 50)]  # 9.9 s are warm-up
    assert measure(run(rows), workload(rows), CONFIG).tbt_max_p95_s == pytest.approx(np.quantile(served, 0.95))


def test_the_breakdown_is_of_the_requests_around_p95() -> None:
    # TTFT rises with the request; what it consists of changes at the 90th per cent and again at the 98th.
    def parts(i: int) -> list[float]:
        total = 1 + i / 1000
        part = 0 if i < 900 else 1 if i < 980 else 2
        return [total if p == part else 0.0 for p in range(4)]

    rows = as_array([record(i, float(i), parts(i)) for i in range(1000)])
    mean_s = parts_at_quantile_s(rows, END_S)
    assert mean_s[1] == pytest.approx(1 + 949 / 1000)
    assert mean_s[[0, 2, 3]] == pytest.approx(0)


def test_a_single_token_has_no_gap_to_miss() -> None:
    rows = as_array([record(0, 0.0, [0, 0, 0, 0], output_tokens=1, tbt_max_s=math.nan)])
    assert Attainment.of(rows, 1.0, 0.1).both.all()


def test_slos_are_each_requests_own() -> None:
    rows = steady()
    lenient = workload(rows).with_slos([0.5 if i % 2 else 2.0 for i in range(100)], 0.1)
    assert measure(run(rows), lenient, CONFIG).slo_attainment == pytest.approx(0.5)


def test_tbt_is_of_runs_that_began_in_the_window() -> None:
    gaps = GapLog()
    gaps.append(segment(5.0, 10, 9.0, 0.0, 1))  # warm-up
    gaps.append(segment(50.0, 4, 0.02, 0.01, 2))
    gaps.append(segment(500.0, 10, 9.0, 0.0, 1))  # after the last arrival
    found = measure(run(steady(), gaps=gaps), workload(steady()), CONFIG)
    assert found.tbt_mean_s == pytest.approx(0.035)
    assert found.tbt_p99_s == pytest.approx(0.05)


def test_one_request_alone_has_no_rate() -> None:
    found = measure(run(steady(1)), workload(steady(1)), CONFIG)
    assert found.requests == 1
    assert math.isnan(found.goodput_rps)
    assert math.isnan(found.tbt_p99_s)


def test_gpus_of_a_tensor_parallel_profile() -> None:
    from dataclasses import replace

    four = replace(CONFIG, shape="1P3D", profile=replace(CONFIG.profile, provenance={"tp": 4}))
    assert gpus(four) == 16


def test_every_column_is_a_number() -> None:
    assert {field.type for field in fields(Metrics)} <= {int, float}
