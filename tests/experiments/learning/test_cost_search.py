"""The searches for costs: their workloads, and the names of what they find."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.episodes import FIRST_TRAINING_SEED
from agents.evolution import STARTS, Found, weights_of
from envs.cluster import ClusterConfig
from envs.slos import Slos
from envs.workload import Workload
from experiments.learning import cost_search
from experiments.learning.cost_search import LOADS, search_costs
from experiments.learning.mixture import Setting
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.requests import Family
from hardware_profiles import load_profile

CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))
SETTINGS = [
    Setting(f"{name} 30 ms", Family(name, rate, Slos.of(2.0, 0.03), tbt_range_s=(0.027, 0.04)), CONFIG)
    for name, rate in (("burst", 8.0), ("LPHD", 30.0))
]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Workload]]:
    """Replaces the search by one that only draws two generations' workloads; all that were drawn."""
    drawn: list[Sequence[Workload]] = []

    def search(
        workloads: Callable[[int], Sequence[Workload]],
        config: ClusterConfig,
        generations: int,
        seed: int,
        starts: Mapping[str, np.ndarray],
    ) -> Found:
        assert (config, generations, seed) == (CONFIG, 7, 3)
        assert starts.keys() >= STARTS.keys()
        drawn.extend([workloads(0), workloads(1)])
        return Found(weights_of(ttft=float(len(drawn))), "lmetric", 0.1)

    monkeypatch.setattr(cost_search, "search", search)
    return drawn


def test_each_setting_has_a_cost_for_every_range_of_loads(
    tmp_path: Path, searched: list[Sequence[Workload]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = search_costs(SETTINGS, 7, 3, Cache(tmp_path, Execution()))
    names = [f"cost-{name}-30-ms" for name in ("burst", "LPHD")]
    searches = [name + added for name in names for added in LOADS]
    assert list(found) == [*searches, *(f"{name}-refined" for name in searches)]
    assert [weights[0] for weights in found.values()] == [2.0 * number for number in range(1, 13)]
    assert "cost-LPHD-30-ms-heavy: tail cost 0.100 lower than that of lmetric" in capsys.readouterr().err
    again = search_costs(SETTINGS, 7, 3, Cache(tmp_path, Execution()))
    assert all((again[name] == weights).all() for name, weights in found.items())
    assert len(searched) == 2 * len(found)  # a finished search is not run again


def test_workloads_are_near_the_loads_and_the_slo_and_all_different(
    tmp_path: Path, searched: list[Sequence[Workload]]
) -> None:
    search_costs(SETTINGS[:1], 7, 3, Cache(tmp_path, Execution()))
    of_searches = 2 * [*LOADS.values()]  # two rounds
    assert len(searched) == 2 * len(of_searches)
    for number, workloads in enumerate(searched):
        loads = of_searches[number // 2]
        assert len(workloads) == len(loads)
        for load, workload in zip(loads, workloads, strict=True):
            assert 0.03 / 1.06 <= workload.tbt_slo_s[0] <= 0.03 * 1.06
            # Arrivals are bursty, so the rate of one draw is only near the nominal one.
            assert workload.rate_rps == pytest.approx(8.0 * load, rel=0.5)
    for first, second in zip(searched[::2], searched[1::2], strict=True):  # the generations of a search
        assert len({tuple(one.arrival_s[:5]) for one in (*first, *second)}) == len(first) + len(second)
    rounds = [{tuple(one.arrival_s[:5]) for drawn in part for one in drawn} for part in (searched[:2], searched[6:8])]
    assert not rounds[0] & rounds[1]


def test_the_second_round_may_begin_with_any_cost_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Mapping[str, np.ndarray]] = []

    def search(*given: object) -> Found:
        starts = given[-1]
        assert isinstance(starts, Mapping)
        begun.append(starts)
        return Found(weights_of(queue=float(len(begun))), "lmetric", 0.1)

    monkeypatch.setattr(cost_search, "search", search)
    found = search_costs(SETTINGS, 7, 3, Cache(tmp_path, Execution()))
    first = {name: weights for name, weights in found.items() if not name.endswith("-refined")}
    assert len(first) == len(SETTINGS) * len(LOADS)
    for number, starts in enumerate(begun):
        expected = STARTS if number < len(first) else STARTS | first
        assert starts.keys() == expected.keys()
        assert all((starts[name] == weights).all() for name, weights in expected.items())


def test_with_known_costs_there_is_only_the_second_round(tmp_path: Path, searched: list[Sequence[Workload]]) -> None:
    known = {"cost-burst-30-ms-refined": weights_of(ttft=1.0)}
    found = search_costs(SETTINGS[:1], 7, 3, Cache(tmp_path, Execution()), known)
    names = [f"cost-burst-30-ms{added}-refined" for added in LOADS]
    assert list(found) == [names[0], f"{names[0]}-2", *names[1:]]
    assert (found[names[0]] == known[names[0]]).all()
    assert len(searched) == 2 * len(LOADS)


def test_workloads_are_those_of_training(searched: list[Sequence[Workload]], monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    draw = Family.draw

    def watched(self: Family, requests: int, load: float, seed: int) -> Workload:
        seeds.append(seed)
        return draw(self, requests, load, seed)

    monkeypatch.setattr(Family, "draw", watched)
    cost_search.CostSearch(SETTINGS[0].source, CONFIG, LOADS[""], 7, 3).run(None)
    assert len(seeds) == 2 * len(LOADS[""])
    assert min(seeds) >= FIRST_TRAINING_SEED
    assert searched
