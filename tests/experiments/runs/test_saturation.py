"""The search for the knee: on made-up attainment, and on a cluster whose capacity is known."""

import json
from dataclasses import replace
from math import inf, isnan, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.slos import DEFAULT_SLOS, Slos
from envs.workload import Workload
from experiments.runs import fingerprint, saturation
from experiments.runs.cache import Cache
from experiments.runs.requests import Family
from experiments.runs.saturation import (
    TARGET,
    TOLERANCE,
    Knee,
    Search,
    find_knee,
    intervals,
    knee_search,
    knees,
    run_searches,
)
from policies import PolicySpec
from tests.experiments.made_up import CONFIG
from tests.experiments.short_knees import shorten_knees
from tests.refusal import refused

# ---- made-up attainment ----------------------------------------------------------------------------------------------


@given(capacity_rps=st.floats(1 / 60, 2000.0), slope=st.floats(0.2, 20.0))
def test_the_knee_of_a_falling_curve_is_found_to_the_tolerance(capacity_rps: float, slope: float) -> None:
    found = find_knee(lambda rate_rps: [min(1.0, TARGET * (capacity_rps / rate_rps) ** slope)])
    assert capacity_rps / (1 + TOLERANCE) * (1 - 1e-9) <= found.rate_rps <= capacity_rps * (1 + 1e-9)
    assert not found.dipped


def test_a_dip_below_the_knee_is_passed_and_reported() -> None:
    def met(rate_rps: float) -> list[float]:
        return [0.85 if 3 <= rate_rps <= 9 else 0.95 if rate_rps <= 20 else 0.1]

    found = find_knee(met)
    assert 20 / (1 + TOLERANCE) <= found.rate_rps <= 20
    assert found.dipped
    assert not find_knee(lambda rate_rps: [0.95 if rate_rps <= 20 else 0.1]).dipped


@pytest.mark.parametrize(("met", "rate_rps"), [(0.7, 0), (0.95, inf)])
def test_a_target_that_no_rate_or_every_rate_meets(met: float, rate_rps: float) -> None:
    found = find_knee(lambda _: [met, met])
    assert found.rate_rps == rate_rps
    assert isnan(found.interval_rps.low)
    assert isnan(found.interval_rps.high)


@given(capacity_rps=st.floats(1 / 60, 2000.0), seeds=st.integers(1, 4))
def test_every_rate_is_tried_once_and_all_seeds_are_kept(capacity_rps: float, seeds: int) -> None:
    asked: list[float] = []

    def met(rate_rps: float) -> list[float]:
        asked.append(rate_rps)
        return [float(rate_rps <= capacity_rps)] * seeds

    found = find_knee(met)
    assert len(asked) == len(set(asked)) == len(found.tried)
    assert all(found.tried[rate] == [float(rate <= capacity_rps)] * seeds for rate in asked)


def knee_of(capacities_rps: list[float], slope: float) -> Knee:
    """The knee if each seed has a capacity, above which its attainment falls."""
    return find_knee(lambda rate_rps: [min(1.0, TARGET * (one / rate_rps) ** slope) for one in capacities_rps])


@given(
    capacity_rps=st.floats(0.1, 500.0),
    factors=st.lists(st.floats(0.8, 1.25), min_size=2, max_size=8),
    slope=st.floats(2.0, 10.0),
)
def test_the_interval_of_a_steep_curve_contains_its_knee(
    capacity_rps: float, factors: list[float], slope: float
) -> None:
    value, low, high = knee_of([capacity_rps * factor for factor in factors], slope).interval_rps
    assert 0 < low <= value <= high < inf


@given(capacity_rps=st.floats(0.1, 500.0), slope=st.floats(0.5, 10.0))
def test_one_seed_has_a_knee_without_an_interval(capacity_rps: float, slope: float) -> None:
    value, low, high = knee_of([capacity_rps], slope).interval_rps
    assert value == pytest.approx(capacity_rps, rel=TOLERANCE)
    assert isnan(low)
    assert isnan(high)


@given(capacity_rps=st.floats(0.1, 500.0), slope=st.floats(0.5, 10.0), seeds=st.integers(2, 8))
def test_seeds_that_agree_give_an_interval_within_the_tolerance(capacity_rps: float, slope: float, seeds: int) -> None:
    value, low, high = knee_of([capacity_rps] * seeds, slope).interval_rps
    assert low == pytest.approx(value)
    assert value <= high <= value * (1 + TOLERANCE) ** 2


def test_intervals_of_knees_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(60):
        capacities = 10 * np.exp(rng.normal(0, 0.1, 6))
        _, low, high = knee_of(capacities.tolist(), 8.0).interval_rps
        covered.append(low / (1 + TOLERANCE) <= 10 <= high * (1 + TOLERANCE))
    assert np.mean(covered) >= 0.85
    wide = log(high / low)
    assert 0.02 < wide < 0.5


# ---- a cluster -------------------------------------------------------------------------------------------------------


class Even(Family):
    """Requests at even distances, all alike: saturation has a closed form."""

    prompt_tokens = 2000
    requests = 600

    def at(self, load: float, count: int, seed: int) -> Any:  # noqa: ARG002 - the number is fixed
        return _Even(load, seed, self.own_slos.classes[0].ttft_s)

    tuning = at


class _Even:
    def __init__(self, rate_rps: float, seed: int, ttft_slo_s: float) -> None:
        self.rate_rps, self.seed, self.ttft_slo_s = rate_rps, seed, ttft_slo_s

    def make(self) -> Workload:
        requests = Even.requests
        return Workload.of(
            [(i + self.seed % 2 / 2) / self.rate_rps for i in range(requests)],
            [Even.prompt_tokens] * requests,
            [2] * requests,
            label="even",
            ttft_slo_s=self.ttft_slo_s,
        )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short searches."""
    shorten_knees(monkeypatch, 200, seeds=(900_001, 900_002))


def search(*seeds: int, slos: Slos = DEFAULT_SLOS) -> Search:
    return Search(PolicySpec.parse("static"), Even("burst", slos=slos), 600, CONFIG, seeds)


def test_the_knee_is_where_static_stops_meeting_the_target(tmp_path: Path) -> None:
    (knee,) = run_searches([search(0)], Cache(tmp_path)).values()
    assert np.mean(knee.tried[knee.rate_rps]) >= TARGET
    above = min(rate for rate in knee.tried if rate > knee.rate_rps)
    assert above <= knee.rate_rps * 1.05
    assert np.mean(knee.tried[above]) < TARGET
    # A queue must first grow to two seconds, so a run of so many requests bears a little more than capacity.
    capacity_rps = 2 / CONFIG.profile.law.time_s([(2000, 0)], 0, 0)
    assert capacity_rps < knee.rate_rps < 1.2 * capacity_rps


def test_a_search_meets_its_seeds_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    make = _Even.make

    def seen(self: _Even) -> Workload:
        asked.append(self.seed)
        return make(self)

    monkeypatch.setattr(_Even, "make", seen)
    run_searches([search(4)], Cache(tmp_path))
    assert set(asked) == {4}
    run_searches([search(4, 5)], Cache(tmp_path))
    assert set(asked) == {4, 5}


def test_a_finished_search_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [search(0), search(1)]
    first = run_searches(searches[:1], Cache(tmp_path))
    again = run_searches(searches, Cache(tmp_path))
    assert again[searches[0]] == first[searches[0]]
    monkeypatch.setattr(saturation, "simulate", None)
    assert run_searches(searches, Cache(tmp_path)) == again
    monkeypatch.setattr(fingerprint, "code", lambda *_, **__: "edited")
    with pytest.raises(TypeError):
        run_searches([search(0)], Cache(tmp_path))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("slos", "says"),
    [
        (Slos.of(1e-6, 0.1), "no knee of static on burst: it misses 90% attainment even at 0.015625 requests/s"),
        (Slos.of(600, 10), "keeps 90% attainment even at 4096 requests/s; tighten the SLOs (they are in seconds)"),
    ],
)
def test_slos_that_give_no_knee_are_invalid_input(slos: Slos, says: str, tmp_path: Path) -> None:
    with refused(says):
        knees(["burst"], slos, CONFIG, Cache(tmp_path))


@pytest.mark.usefixtures("few")
def test_the_knee_of_a_family_is_written_with_its_interval(tmp_path: Path) -> None:
    found = knees(["burst", "HPLD"], DEFAULT_SLOS, CONFIG, Cache(tmp_path / "runs"))
    saturation.write_knees(intervals(found), CONFIG, tmp_path / "knees.json")
    written = json.loads((tmp_path / "knees.json").read_text())
    assert (written["cluster"], written["requests"], written["seeds"]) == ("2P2D", 200, [900_001, 900_002])
    for name, knee in found.items():
        assert written["knees_rps"][name] == knee.interval_rps._asdict()
        assert knee.interval_rps.low <= knee.rate_rps <= knee.interval_rps.high
    text = saturation.knee_text(intervals(found))
    assert text.startswith(f"burst {found['burst'].rate_rps:.2f} [")
    assert ", HPLD " in text


def test_a_knee_depends_on_family_slos_and_cluster_alone() -> None:
    one = knee_search("burst", DEFAULT_SLOS, CONFIG)
    assert one.key == knee_search("burst", DEFAULT_SLOS, CONFIG).key
    others = [
        knee_search("LPLD", DEFAULT_SLOS, CONFIG),
        knee_search("burst", Slos.of(1.0, 0.1), CONFIG),
        knee_search("burst", DEFAULT_SLOS, replace(CONFIG, shape="1P3D")),
    ]
    assert len({one.key, *(other.key for other in others)}) == 4
