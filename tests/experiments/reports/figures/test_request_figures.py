"""Figures of single runs: queues over time, and where prompts are prefilled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import RequestRecord
from experiments.analysis.request_table import as_array
from experiments.reports.figures.request_figures import busiest_s, depth, prefill_timeline, queue_depth
from tests.experiments.made_up import many_records, record


@given(many_records(), st.floats(0, 100))
def test_depth_counts_requests_that_arrived_and_did_not_start(rows: list[RequestRecord], time_s: float) -> None:
    waiting = sum(row.arrival_s <= time_s and not row.prefill_start_s <= time_s for row in rows)
    assert depth(as_array(rows), np.array([time_s])) == [waiting]


def test_a_rejected_request_waits_for_nothing() -> None:
    away = record(0, 1.0, [])._replace(prefill_node=-1, decode_node=-1)
    rows = as_array([away, record(1, 2.0, [])])
    assert depth(rows, np.array([1.5, 2.5])).tolist() == [0, 1]


@given(many_records(), st.floats(0.1, 20))
def test_the_busiest_time_begins_with_an_arrival_and_has_most_tokens(rows: list[RequestRecord], span_s: float) -> None:
    records = as_array(rows)

    def tokens(start_s: float) -> int:
        inside = (records["arrival_s"] >= start_s) & (records["arrival_s"] <= start_s + span_s)
        return int(records["prompt_tokens"][inside].sum())

    begins_s = busiest_s(records, span_s)
    assert begins_s in records["arrival_s"]
    assert tokens(begins_s) == max(tokens(float(one)) for one in records["arrival_s"])


@pytest.mark.slow
@pytest.mark.parametrize("policies", [1, 3])
def test_there_is_one_panel_per_policy(policies: int) -> None:
    rows = as_array([record(i, float(i), [0.4, 0.3, 0.2, 0.1], deflected=i % 3 == 0) for i in range(50)])
    runs = {f"policy {i}": rows for i in range(policies)}
    for figure in (queue_depth(runs, 50.0, "title"), prefill_timeline(runs, 10.0, 20.0, "title")):
        assert [axes.get_title(loc="left") for axes in figure.axes] == list(runs)
        figure.canvas.draw()


@pytest.mark.slow
def test_nodes_are_named_by_their_role() -> None:
    rows = as_array([record(i, float(i), [0.4, 0.3, 0.2, 0.1], deflected=i % 3 == 0) for i in range(50)])
    labels = [text.get_text() for text in prefill_timeline({"a": rows}, 10.0, 20.0, "title").axes[0].get_yticklabels()]
    assert labels == ["prefill 0", "prefill 1", "decode 2"]
