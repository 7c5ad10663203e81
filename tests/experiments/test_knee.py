"""The search for the highest bearable load: on made-up attainment, and on a cluster whose capacity is known."""

from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.slos import Slos
from envs.workload import Workload
from experiments import knee
from experiments.knee import TARGET, TOLERANCE, Search, attainment, family_at_rate, find_knee, knees, search_all
from hardware_profiles import InputError
from tests.experiments.made_up import CONFIG


def even(*, rate_rps: float, seed: int, prompt_tokens: int = 2000, ttft_slo_s: float = 2.0) -> Workload:
    """Requests at even distances, all alike: saturation has a closed form."""
    requests = 600
    return Workload.of(
        [(i + seed % 2 / 2) / rate_rps for i in range(requests)],
        [prompt_tokens] * requests,
        [2] * requests,
        label="even",
        ttft_slo_s=ttft_slo_s,
    )


# ---- made-up attainment ----------------------------------------------------------------------------------------------


@given(capacity_rps=st.floats(1 / 60, 2000.0), slope=st.floats(0.2, 20.0))
def test_where_attainment_falls_with_load_the_knee_is_found_to_the_tolerance(capacity_rps: float, slope: float) -> None:
    def met(rate_rps: float) -> float:
        return min(1.0, TARGET * (capacity_rps / rate_rps) ** slope)

    found = find_knee(met)
    assert capacity_rps / (1 + TOLERANCE) * (1 - 1e-9) <= found.rate_rps <= capacity_rps * (1 + 1e-9)
    assert not found.dipped


def test_a_dip_below_the_knee_is_passed_and_told() -> None:
    def met(rate_rps: float) -> float:
        return 0.85 if 3 <= rate_rps <= 9 else 0.95 if rate_rps <= 20 else 0.1

    found = find_knee(met)
    assert 20 / (1 + TOLERANCE) <= found.rate_rps <= 20
    assert found.dipped
    assert not find_knee(lambda rate_rps: 0.95 if rate_rps <= 20 else 0.1).dipped


def test_never_and_always() -> None:
    assert find_knee(lambda _: 0.7).rate_rps == 0
    assert find_knee(lambda _: 0.95).rate_rps == inf


@given(capacity_rps=st.floats(1 / 60, 2000.0))
def test_every_rate_is_tried_once_and_what_it_gave_is_kept(capacity_rps: float) -> None:
    asked: list[float] = []

    def met(rate_rps: float) -> float:
        asked.append(rate_rps)
        return 1.0 if rate_rps <= capacity_rps else 0.0

    found = find_knee(met)
    assert len(asked) == len(set(asked)) == len(found.tried)
    assert all(found.tried[rate] == (rate <= capacity_rps) for rate in asked)


# ---- requests --------------------------------------------------------------------------------------------------------


@given(low_rps=st.floats(0.1, 50), high_rps=st.floats(0.1, 50), seed=st.integers(0, 2**31))
def test_at_two_rates_the_same_requests_come_at_another_pace(low_rps: float, high_rps: float, seed: int) -> None:
    at_rate = family_at_rate("burst", 40)
    low, high = at_rate(rate_rps=low_rps, seed=seed), at_rate(rate_rps=high_rps, seed=seed)
    assert np.array_equal(low.prompt_tokens, high.prompt_tokens)
    assert np.array_equal(low.output_tokens, high.output_tokens)
    assert low.arrival_s * low_rps == pytest.approx(high.arrival_s * high_rps)


def test_a_run_has_as_many_requests_as_its_span_takes() -> None:
    at_rate = family_at_rate("LPLD", 100, span_s=5.0, slos=Slos.of(ttft_s=0.5))
    assert len(at_rate(rate_rps=10, seed=1)) == 100
    longer = at_rate(rate_rps=60, seed=1)
    assert len(longer) == 300
    assert np.array_equal(longer.prompt_tokens[:100], at_rate(rate_rps=10, seed=1).prompt_tokens)
    assert set(longer.ttft_slo_s) == {0.5}


# ---- a cluster -------------------------------------------------------------------------------------------------------


def test_the_knee_is_where_static_stops_meeting_the_target(tmp_path: Path) -> None:
    found = knees({"even": even}, CONFIG, tmp_path)["even"]
    assert attainment(even(rate_rps=found, seed=0), "static", CONFIG) >= TARGET
    assert attainment(even(rate_rps=found * 1.05, seed=0), "static", CONFIG) < TARGET
    # A queue must first grow to two seconds, so a run of so many requests bears a little more than capacity.
    capacity_rps = 2 / CONFIG.profile.law.time_s([(2000, 0)], 0, 0)
    assert capacity_rps < found < 1.2 * capacity_rps


def test_an_slo_that_no_rate_meets(tmp_path: Path) -> None:
    def strict(*, rate_rps: float, seed: int) -> Workload:
        return even(rate_rps=rate_rps, seed=seed, ttft_slo_s=0.001)

    with pytest.raises(InputError, match="no knee of static on strict"):
        knees({"strict": strict}, CONFIG, tmp_path)


def test_a_search_meets_its_own_seeds_alone(tmp_path: Path) -> None:
    asked: list[int] = []

    def at_rate(*, rate_rps: float, seed: int) -> Workload:
        asked.append(seed)
        return even(rate_rps=rate_rps, seed=seed)

    search_all([Search("static", "even", at_rate, CONFIG, (4,))], tmp_path)
    assert set(asked) == {4}
    search_all([Search("static", "even", at_rate, CONFIG, (4, 5))], tmp_path)
    assert set(asked) == {4, 5}


def test_what_was_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [Search("static", "even", even, CONFIG, (seed,)) for seed in (0, 1)]
    first = search_all(searches[:1], tmp_path)
    again = search_all(searches, tmp_path)
    assert again[searches[0]] == first[searches[0]]
    monkeypatch.setattr(knee, "simulate", None)
    assert search_all(searches, tmp_path) == again
    with pytest.raises(TypeError):
        search_all(searches, tmp_path, fingerprint="other")
