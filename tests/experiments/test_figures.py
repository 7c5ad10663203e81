from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import RequestRecord
from experiments import figures
from experiments.metrics import as_array
from experiments.statistics import Interval
from tests.experiments.made_up import many_records, record

PNG = b"\x89PNG\r\n"


@given(many_records(), st.floats(0, 100))
def test_depth_counts_those_that_arrived_and_did_not_start(rows: list[RequestRecord], time_s: float) -> None:
    waiting = sum(row.arrival_s <= time_s and not row.prefill_start_s <= time_s for row in rows)
    assert figures.depth(as_array(rows), np.array([time_s])) == [waiting]


def test_a_rejected_request_waits_for_nothing() -> None:
    away = record(0, 1.0, [])._replace(prefill_node=-1, decode_node=-1)
    rows = as_array([away, record(1, 2.0, [])])
    assert figures.depth(rows, np.array([1.5, 2.5])).tolist() == [0, 1]


@pytest.mark.slow
def test_every_picture_is_drawn_without_a_display(tmp_path: Path) -> None:
    policies = ["static", "kairos:alpha=1.5", "runs/somewhere/policy.npz", *(f"rule{i}" for i in range(9))]
    rows = as_array([record(i, float(i), [0.4, 0.3, 0.2, 0.1], deflected=i % 3 == 0) for i in range(50)])
    figures.ttft_cdf({policy: np.linspace(0.1, 5, 50) for policy in policies}, 2.0, "title", tmp_path / "a.png")
    figures.ttft_breakdown({policy: np.array([1.0, 0.2, 0, 0.1]) for policy in policies}, "title", tmp_path / "b.png")
    curve = [(0.5, Interval(0.99, 0.98, 1.0)), (1.0, Interval(0.9, np.nan, np.nan))]
    figures.attainment_by_load(dict.fromkeys(policies, curve), "load", "title", tmp_path / "c.png")
    figures.queue_depth(dict.fromkeys(policies[:1], rows), 50.0, "title", tmp_path / "d.png")
    figures.node_timeline(dict.fromkeys(policies[:2], rows), 10.0, 20.0, "title", tmp_path / "e.png")
    few = policies[2:5]
    figures.ttft_cdf(dict.fromkeys(policies, np.linspace(0.1, 5, 50)), 2.0, "title", tmp_path / "f.png", few)
    figures.attainment_by_load(dict.fromkeys(policies, curve), "load", "title", tmp_path / "g.png", few)
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == [f"{letter}.png" for letter in "abcdefg"]
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_names_fit_a_legend() -> None:
    names = ["kairos", "kairos:alpha=1.5", "runs/x/policy.npz", "mine=runs/x/policy.npz", "my.module:Rule"]
    assert [policies.label(name) for name in names] == [
        "kairos",
        "kairos:alpha=1.5",
        "policy.npz",
        "mine",
        "my.module:Rule",
    ]
