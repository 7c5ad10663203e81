"""The cost of a setting, and which setting is best."""

import numpy as np
import pytest

import policies
from envs.cluster import ClusterConfig, Placement, RequestView, RouterView, simulate
from envs.objective import DEFAULT_OBJECTIVE, Objective
from envs.slos import Slos
from experiments.runs.cache import Cache
from experiments.runs.requests import FamilyRequests, made
from experiments.runs.tuning import Cost, TuningRun, best, tune_rules
from policies import PolicySpec
from tests.toy import toy_profile

CONFIG = ClusterConfig(toy_profile())


def cost_of(policy: str, requests: FamilyRequests, objective: Objective = DEFAULT_OBJECTIVE) -> Cost:
    run = TuningRun(PolicySpec.parse(policy), requests, CONFIG, objective=objective)
    return Cost(*run.run(run.inputs()).value)


class TurnsAway:
    """Takes every second request."""

    name = "turns-away"

    def place(self, request: RequestView, view: RouterView) -> Placement | None:  # noqa: ARG002
        return None if request.number % 2 else Placement(0, 2)


def test_turning_requests_away_is_never_cheap() -> None:
    requests = FamilyRequests("burst", 1.0, 100, 1)
    kept, turned_away = (cost_of(policy, requests) for policy in ("static", f"{__name__}:TurnsAway"))
    assert turned_away.cost > kept.cost
    assert turned_away.attainment <= 0.5 < kept.attainment


def test_the_cost_of_a_setting_is_the_environments() -> None:
    requests = FamilyRequests("burst", 10.0, 200, 4, Slos.of(tbt_s=0.02))
    config = ClusterConfig(toy_profile(), step_budget="fixed")
    run = TuningRun(PolicySpec.parse("always-local"), requests, config, objective=Objective(tail_weight=3.0))
    found = Cost(*run.run(run.inputs()).value)
    result = simulate(made(requests), policies.make("always-local"), config)
    waits = np.array([r.first_token_s - r.arrival_s for r in result.records]) / 2.0
    columns = result.gaps.columns()
    gaps_s = np.concatenate([np.repeat(f + g * np.arange(int(k)), int(w)) for _, k, f, g, w in columns])
    excess = np.maximum(0.0, gaps_s / 0.02 - 1.0).sum() / 200
    assert excess > 0
    assert found.cost == pytest.approx((waits + 3.0 * waits**2).mean() + excess)
    met = [r.first_token_s - r.arrival_s <= 2.0 and r.tbt_max_s <= 0.02 for r in result.records]
    assert found.attainment == pytest.approx(np.mean(met))


def test_the_cost_of_a_setting_is_its_mean_over_all_places(tmp_path) -> None:
    requests = [FamilyRequests("burst", 8.0, 80, seed) for seed in (1, 2)]
    places = [(one, CONFIG, 0) for one in requests]
    (tried,) = tune_rules([PolicySpec.parse("kairos")], places, 4, Cache(tmp_path)).values()
    assert len(tried) == 4
    for setting, found in tried.items():
        each = [cost_of(str(setting), one, TuningRun.objective) for one in requests]
        assert found == pytest.approx(tuple(np.mean(each, axis=0)))


def test_of_settings_that_attain_as_much_the_cheapest_is_best() -> None:
    names = ("cheap", "good", "nearly", "all")
    cheap, good, nearly, every = (PolicySpec("", name, "", None) for name in names)
    tried = {cheap: Cost(0.1, 0.90), good: Cost(0.5, 0.99), nearly: Cost(0.4, 0.985)}
    assert best(tried) == nearly
    assert best({**tried, every: Cost(0.9, 1.0)}) == good
