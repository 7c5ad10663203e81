"""The mixture: ranges of TBT SLOs, and what training draws."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.choices import most_choices
from envs.cluster import ClusterConfig
from envs.objective import Objective
from experiments.learning.mixture import Setting, objective_for, tbt_ranges
from experiments.runs.requests import Family
from hardware_profiles import load_profile


@given(st.lists(st.integers(10, 1000).map(lambda ms: ms / 1000), min_size=2, max_size=6, unique=True))
def test_ranges_of_tbt_slos_contain_their_slo_and_meet(tbt_slos_s: list[float]) -> None:
    ranges = dict(zip(tbt_slos_s, tbt_ranges(tbt_slos_s), strict=True))
    ordered = [ranges[one] for one in sorted(tbt_slos_s)]
    for one, found in ranges.items():
        assert found is not None
        assert found[0] <= one <= found[1]
    for below, above in pairwise(ordered):
        assert below is not None
        assert above is not None
        assert below[1] == above[0]


def test_a_single_tbt_slo_has_no_range() -> None:
    assert tbt_ranges([0.05]) == [None]


def test_training_draws_tbt_slos_from_the_range_and_depends_on_the_seed_alone() -> None:
    source = Family("burst", 8.0, tbt_range_s=(0.03, 0.05))
    drawn = [source.draw(20, 1.0, seed) for seed in range(30)]
    tbt_slos_s = np.array([one.tbt_slo_s[0] for one in drawn])
    assert ((tbt_slos_s >= 0.03) & (tbt_slos_s <= 0.05)).all()
    assert len(set(tbt_slos_s)) == 30
    assert {len(set(one.tbt_slo_s)) for one in drawn} == {1}
    assert 5 < sum(one.ttft_slo_s[0] == 2.0 for one in drawn) < 25
    assert source.draw(20, 1.0, 7).tbt_slo_s[0] == tbt_slos_s[7]
    assert source.evaluation(1.0, 20, 7).make().tbt_slo_s[0] == 0.1


@pytest.mark.parametrize(
    "changed",
    [{}, {"hosts": (0, 0, 1, 1)}, {"node_speeds": (1.0, 0.5, 1.0, 1.0), "max_seqs": 64}, {"step_budget": "fixed"}],
)
def test_the_environment_of_a_setting_has_its_cluster(changed: dict[str, Any]) -> None:
    config = replace(ClusterConfig(load_profile("a100-qwen3-8b")), **changed)
    setting = Setting("burst", Family("burst", 8.0), config)
    assert setting.environment("pairs", 16, Objective()).unwrapped.config == config


def test_the_environment_of_a_setting_plays_its_range() -> None:
    config = ClusterConfig(load_profile("a100-qwen3-8b"))
    setting = Setting("burst", Family("burst", 8.0, tbt_range_s=(0.03, 0.05)), config)
    env = setting.environment("pairs", most_choices("pairs", 2, 2), objective_for(0.2))
    for seed in range(3):
        env.reset(seed=seed)
        assert 0.03 <= env.process.choices.request.tbt_slo_s <= 0.05


def test_a_wait_as_long_as_the_best_p95_costs_the_same_share_everywhere() -> None:
    for best in (0.02, 0.5):
        objective = objective_for(best)
        assert objective.tail_weight * best**2 == pytest.approx(4.0 * best)
        assert objective.miss_weight == 4.0
