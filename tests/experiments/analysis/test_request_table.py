"""The requests of a run as a table: TTFT and its parts, attainment, and the summary that reports use."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import RequestRecord
from experiments.analysis.request_table import (
    PARTS,
    PROMPT_BUCKETS,
    RECORD,
    WARMUP_SHARE,
    Attainment,
    RequestSummary,
    around_quantile,
    as_array,
    measured,
    parts_at_quantile_s,
    rejected,
    ttft_parts_s,
    ttft_s,
)
from tests.experiments.made_up import many_records, record

END_S = 1000.0


def test_columns_are_those_of_the_record() -> None:
    assert RECORD.names == RequestRecord._fields


@given(many_records(), st.randoms(use_true_random=False))
def test_the_table_is_in_the_order_of_requests(rows: list[RequestRecord], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert as_array(shuffled).tobytes() == as_array(rows).tobytes()
    assert as_array(rows)["request"].tolist() == list(range(len(rows)))


@given(many_records())
def test_the_measured_window_begins_after_the_warm_up(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    first_s, last_s = rows[0].arrival_s, rows[-1].arrival_s
    begins_s = first_s + WARMUP_SHARE * (last_s - first_s)
    assert measured(records).tolist() == [row.arrival_s >= begins_s for row in rows]
    assert measured(records)[-1]


@given(many_records())
def test_parts_sum_to_ttft_also_of_requests_that_got_stuck(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    parts_s = ttft_parts_s(records, END_S)
    assert parts_s.shape == (len(rows), len(PARTS))
    assert (parts_s >= 0).all()
    np.testing.assert_allclose(parts_s.sum(axis=1), ttft_s(records, END_S), rtol=1e-12, atol=1e-12)


def test_a_stuck_request_is_in_the_part_that_it_reached() -> None:
    # In execution at the end of the run, after half a second in the queue.
    assert ttft_parts_s(as_array([record(0, 99.0, [0.5])]), 199.0)[-1] == pytest.approx([0.5, 99.5, 0, 0])


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


@given(many_records())
def test_an_unfinished_or_rejected_request_never_meets_its_slos(rows: list[RequestRecord]) -> None:
    away = rows[0]._replace(prefill_node=-1, decode_node=-1, first_token_s=math.nan, last_token_s=math.nan)
    records = as_array([away, *rows[1:]])
    met = Attainment.of(records, math.inf, math.inf)
    assert not met.both[np.isnan(records["last_token_s"])].any()
    assert not met.both[rejected(records)].any()
    assert rejected(records).tolist() == [True, *[False] * (len(rows) - 1)]


def test_a_single_token_has_no_gap_to_miss() -> None:
    rows = as_array([record(0, 0.0, [0, 0, 0, 0], output_tokens=1, tbt_max_s=math.nan)])
    assert Attainment.of(rows, 1.0, 0.1).both.all()


@given(many_records(), st.floats(0, 1), st.integers(1, 30))
def test_requests_around_a_quantile_are_ranks_next_to_it(rows: list[RequestRecord], q: float, least: int) -> None:
    records = as_array(rows)
    around = around_quantile(records, END_S, q, least)
    every_s, around_s = np.sort(ttft_s(records, END_S)), ttft_s(around, END_S)
    assert (np.diff(around_s) >= 0).all()
    assert min(len(rows), 1) <= len(around) <= len(rows)
    assert every_s[round(q * (len(rows) - 1))] in around_s
    start = int(np.searchsorted(every_s, around_s[0]))
    assert any(np.array_equal(every_s[first : first + len(around)], around_s) for first in range(start, len(rows)))


def test_the_breakdown_is_of_the_requests_around_p95() -> None:
    # TTFT rises with the request; its part changes at the 90th per cent and again at the 98th.
    def parts(i: int) -> list[float]:
        total = 1 + i / 1000
        part = 0 if i < 900 else 1 if i < 980 else 2
        return [total if p == part else 0.0 for p in range(4)]

    rows = as_array([record(i, float(i), parts(i)) for i in range(1000)])
    mean_s = parts_at_quantile_s(rows, END_S)
    assert mean_s[1] == pytest.approx(1 + 949 / 1000)
    assert mean_s[[0, 2, 3]] == pytest.approx(0)


@given(many_records(least=5))
def test_a_summary_counts_every_measured_request_once(rows: list[RequestRecord]) -> None:
    records = as_array(rows)
    records["prompt_tokens"] = np.resize([1, 512, 513, 8192, 8193], len(records))
    summary = RequestSummary.of(records, END_S)
    window = records[measured(records)]
    assert len(summary.prompts) == len(summary.deflected) == len(PROMPT_BUCKETS) + 1
    for bucket, (low, high) in enumerate(pairwise([0, *PROMPT_BUCKETS, np.inf])):
        inside = (window["prompt_tokens"] > low) & (window["prompt_tokens"] <= high)
        assert summary.prompts[bucket] == inside.sum()
        assert summary.deflected[bucket] == window["deflected"][inside].sum()
    assert summary.prompt_tokens == pytest.approx(window["prompt_tokens"].mean())
    assert summary.parts_s == pytest.approx(parts_at_quantile_s(window, END_S).tolist())
