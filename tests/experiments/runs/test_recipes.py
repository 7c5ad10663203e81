"""Recipes of requests: equal recipes make equal requests, and which seeds are for what."""

from itertools import combinations
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.episodes import FIRST_TRAINING_SEED
from envs.generators import families
from envs.slos import DEFAULT_SLOS, Slos
from experiments.compare import SEEDS
from experiments.runs import data_splits
from experiments.runs.requests import Family, TraceRequests, made

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.5},{100 + i % 7 * 300},20\n" for i in range(100))


@pytest.fixture
def trace(tmp_path: Path) -> TraceRequests:
    path = tmp_path / "toy.csv"
    path.write_text(TRACE)
    return TraceRequests.of(path, "native", 1.0, None, DEFAULT_SLOS)


@given(low_rps=st.floats(0.1, 50), high_rps=st.floats(0.1, 50), seed=st.integers(0, 2**31))
def test_at_two_rates_the_same_requests_come_at_another_pace(low_rps: float, high_rps: float, seed: int) -> None:
    family = Family("burst")
    low, high = (family.at(rate, 40, seed).make() for rate in (low_rps, high_rps))
    assert np.array_equal(low.prompt_tokens, high.prompt_tokens)
    assert np.array_equal(low.output_tokens, high.output_tokens)
    assert low.arrival_s * low_rps == pytest.approx(high.arrival_s * high_rps)


@given(unit_rps=st.floats(0.1, 50), load=st.sampled_from([0.5, 1.0, 2.0]), seed=st.integers(0, 99))
def test_a_load_is_a_multiple_of_the_unit(unit_rps: float, load: float, seed: int) -> None:
    recipe = Family("burst", unit_rps).at(load, 40, seed)
    assert recipe.nominal_rps == load * unit_rps
    assert recipe == Family("burst").at(load * unit_rps, 40, seed)


def test_a_run_has_as_many_requests_as_its_span_takes() -> None:
    family = Family("LPLD", slos=Slos.of(ttft_s=0.5), span_s=5.0)
    short, longer = family.at(10, 100, 1).make(), family.at(60, 100, 1).make()
    assert (len(short), len(longer)) == (100, 300)
    assert np.array_equal(longer.prompt_tokens[:100], short.prompt_tokens)
    assert set(longer.ttft_slo_s) == {0.5}


@pytest.mark.parametrize("name", families())
def test_equal_recipes_make_equal_requests_and_share_them(name: str) -> None:
    recipe, same = Family(name).at(5.0, 50, 3), Family(name).at(5.0, 50, 3)
    assert repr(recipe) == repr(same)
    assert made(recipe) is made(same)
    one, other = recipe.make(), same.make()
    assert one.label == other.label
    for column in ("arrival_s", "prompt_tokens", "output_tokens", "ttft_slo_s", "tbt_slo_s"):
        assert np.array_equal(getattr(one, column), getattr(other, column))


def test_a_trace_is_known_by_its_content_and_not_by_its_folder(trace: TraceRequests, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / trace.path.name
    moved.parent.mkdir()
    moved.write_text(TRACE)
    assert repr(TraceRequests.of(moved, "native", 1.0, None, DEFAULT_SLOS)) == repr(trace)
    moved.write_text(TRACE.replace("100,20", "101,20"))
    assert repr(TraceRequests.of(moved, "native", 1.0, None, DEFAULT_SLOS)) != repr(trace)


def test_a_trace_at_a_load_is_compressed_in_time(trace: TraceRequests) -> None:
    whole, twice = trace.make(), trace.at(2.0, 0).make()
    assert isnan(trace.nominal_rps)
    assert twice.arrival_s == pytest.approx(whole.arrival_s / 2)
    assert twice.rate_rps == pytest.approx(2 * whole.rate_rps)


def test_no_seed_is_used_for_two_purposes() -> None:
    many = 10_000  # more seeds than any command is given
    purposes = {
        "compare": range(max(SEEDS, many)),
        "evaluation": range(data_splits.EVALUATION_SEED, data_splits.EVALUATION_SEED + many),
        "tuning": data_splits.TUNING_SEEDS,
        "knee": data_splits.KNEE_SEEDS,
        "capacity": range(data_splits.CAPACITY_SEED, data_splits.CAPACITY_SEED + many),
        "alarms": range(data_splits.ALARM_SEED, data_splits.ALARM_SEED + many),
        "training": range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + many),
    }
    for (one, seeds), (other, others) in combinations(purposes.items(), 2):
        assert not set(seeds) & set(others), f"{one} and {other}"
