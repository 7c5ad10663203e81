"""The episodes that the members of a portfolio play, and the file that comes of them."""

import json
from dataclasses import replace
from itertools import pairwise
from math import e
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import policies
from agents.context import CONTEXT
from agents.distillation import Played, play_rule
from agents.evolution import STARTS, weights_of
from agents.placement_network import PlacementNetwork
from agents.placement_policy import LearnedPolicy, current_layout
from agents.policy_file import load_policy, save_policy, write_policy
from agents.selection import RegretModel
from envs.cluster import ClusterConfig
from experiments.learning import member_selection
from experiments.learning.distilled_start import EpisodePlayed, Lesson, draw_episode
from experiments.learning.member_selection import (
    SelectionTraining,
    episodes_of,
    most_useful,
    regret_by_setting,
    select_members,
)
from experiments.learning.mixture import Setting
from experiments.learning.selection_episodes import SelectionEpisodes, read_episodes, write_episodes
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.requests import Family
from hardware_profiles import load_profile
from policies import PolicySpec

SETTING = Setting("burst", Family("burst", 8.0), ClusterConfig(load_profile("a100-qwen3-8b")))
RANGE_S = (0.08, 0.12)
RANGE = replace(SETTING, source=Family("burst", 8.0, tbt_range_s=RANGE_S))
SLOW_NODE = replace(SETTING, name="slow", config=replace(SETTING.config, node_speeds=(1.0, 1.0, 1.0, 0.7)))


def test_members_are_measured_as_they_play() -> None:
    rules = ("static", "lmetric")
    members = tuple(PolicySpec.parse(name) for name in rules)
    found = EpisodePlayed(SETTING.source, SETTING.config, members, 1, 2, contexts=5).run(None).value
    workload, _ = draw_episode(SETTING.source, 1, 2)
    assert np.shape(found["contexts"]) == (5, len(CONTEXT))
    for name, result in zip(rules, found["results"], strict=True):
        played = play_rule(workload, policies.make(name), SETTING.config)
        assert result == [played.ttft_p95_s, played.attainment]
    unwatched = EpisodePlayed(SETTING.source, SETTING.config, members, 1, 2).run(None).value
    assert unwatched == found | {"contexts": []}


def untrained(folder: Path) -> Path:
    """The file of an untrained network."""
    layout = current_layout("pairs")
    torch.manual_seed(0)
    save_policy(folder / "network.npz", PlacementNetwork(layout.sizes, hidden=4), layout, {"timesteps": 1})
    return folder / "network.npz"


@given(arrays(float, st.tuples(st.integers(1, 20), st.integers(1, 8)), elements=st.floats(0.0, 1.0)))
def test_the_most_useful_members_lose_less_the_more_there_are(regret: np.ndarray) -> None:
    lost = []
    for count in range(1, regret.shape[1] + 1):
        kept = most_useful(regret, count)
        assert kept[0] == 0
        assert len(set(kept)) == count
        lost.append(regret[:, kept].min(axis=1).mean())
    assert all(more <= fewer for fewer, more in pairwise(lost))
    assert lost[-1] == regret.min(axis=1).mean()
    assert most_useful(regret, regret.shape[1] + 3) == list(range(regret.shape[1]))
    last = regret.shape[1] - 1
    assert all(last in most_useful(regret, count, [last]) for count in range(1, regret.shape[1]))
    assert most_useful(regret, 1, range(regret.shape[1])) == list(range(regret.shape[1]))


def test_the_regret_of_a_setting_is_that_of_the_selected_members_there() -> None:
    other = replace(SETTING, name="other")
    fast, slow = Played(1.0, 1.0), Played(e**0.4, 1.0)
    lessons = [
        Lesson(0, number, setting, (100.0 * number, 0.0), results, np.zeros((3, len(CONTEXT))))
        for number, (setting, results) in enumerate(
            ((SETTING, (slow, fast)), (other, (fast, slow)), (SETTING, (slow, fast)), (SLOW_NODE, (slow, fast)))
        )
    ]
    for selected, expected in ((0, (0.8, 0.0, 0.4)), (1, (0.0, 0.4, 0.0))):
        shapes = RegretModel.shapes(1, 2, 1)
        weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        model = RegretModel((("network", "static")[selected],), weights)
        found = regret_by_setting(
            model, ("network", "static"), lessons, episodes_of(lessons, ("network", "static")).regret
        )
        assert tuple(found) == (SETTING, other, SLOW_NODE)
        assert tuple(found.values()) == pytest.approx(expected)


def test_sharp_regrets_are_those_of_single_episodes_and_blurred_ones_those_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    lessons = [
        Lesson(0, number, SETTING, (float(number), 0.0), tuple(Played(p95, 1.0) for p95 in rng.uniform(1.0, 1.5, 20)))
        for number in range(5)
    ]
    log_p95 = np.log([[one.ttft_p95_s for one in lesson.results] for lesson in lessons])
    behind = log_p95 - log_p95.min(axis=1, keepdims=True)
    names = [str(number) for number in range(20)]
    assert episodes_of(lessons, names, 1e3).regret == pytest.approx(behind)
    mean = log_p95.mean(axis=0)
    assert episodes_of(lessons, names, 1e-6).regret == pytest.approx(np.tile(mean - mean.min(), (5, 1)))


@pytest.mark.slow
def test_only_the_useful_costs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_selection, "RULES", (PolicySpec.parse("static"),))
    monkeypatch.setattr(member_selection, "_MEMBERS", 2)
    network, policy = untrained(tmp_path), tmp_path / "policy.npz"
    costs = {"cost-bad": weights_of(queue=-1.0), "cost-good": STARTS["lmetric"]}
    write_policy(network, load_policy(network)._replace(costs=costs))
    cache = Cache(tmp_path / "runs", Execution())
    select_members(network, policy, [SETTING], SelectionTraining(10), "pairs", (0, 0), cache)
    found = load_policy(policy)
    assert found.regret is not None
    assert found.regret.members == ("network", "cost-good")
    assert list(found.costs) == ["cost-good"]
    played = [
        entry["task"] for entry in map(json.loads, (tmp_path / "runs" / "results.jsonl").read_text().splitlines())
    ]
    assert sum(task.startswith("rules on") for task in played) == 3  # of the costs, in the first three tenths
    assert sum(task.startswith("cost-good on") for task in played) == 7  # two of them drawn by regret
    assert len({task.split()[-1] for task in played}) == 10
    selected = LearnedPolicy(policy)
    workload, _ = draw_episode(SETTING.source, 0, 1)
    play_rule(workload, selected, SETTING.config)
    assert selected.handed_over == 0

    assert read_episodes(tmp_path / "episodes.npz").members == ("network", "static", "cost-good")
    kept = ("network", "cost-bad")
    select_members(network, policy, [SETTING], SelectionTraining(10), "pairs", (0, 0), cache, kept)
    assert read_episodes(tmp_path / "episodes.npz").members == ("network", "static", "cost-bad", "cost-good")
    again = load_policy(policy).regret
    assert again is not None
    assert set(kept) <= set(again.members)


@pytest.mark.parametrize("trained_on", ["2P2D", "3P1D"])
def test_members_play_on_the_roles_that_they_will_see(
    trained_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = untrained(tmp_path)
    write_policy(network, load_policy(network)._replace(training={"clusters": [trained_on]}))
    given: list[bool] = []

    class PlayedError(Exception):
        """Raised instead of the play."""

    def play(*_: object, own_roles: bool, **__: object) -> None:
        given.append(own_roles)
        raise PlayedError

    monkeypatch.setattr(member_selection, "play_members", play)
    with pytest.raises(PlayedError):
        select_members(
            network, tmp_path / "p.npz", [SETTING], SelectionTraining(4), "pairs", (0, 0), Cache(tmp_path, Execution())
        )
    assert given == [trained_on == "2P2D"]


def test_rules_play_with_own_roles_as_on_a_cluster_that_has_them() -> None:
    def played(shape: str, own_roles: bool | None) -> object:
        config = replace(SETTING.config, shape=shape)
        return EpisodePlayed(SETTING.source, config, (PolicySpec.parse("static"),), 0, 1, own_roles=own_roles).run(None)

    even = played("2P2D", None)
    assert played("3P1D", own_roles=True) == even
    assert played("2P2D", own_roles=True) == even
    assert played("3P1D", own_roles=False) == played("3P1D", None) != even


@pytest.mark.slow
def test_the_file_holds_the_network_and_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_selection, "RULES", (PolicySpec.parse("lmetric"),))
    network, policy = untrained(tmp_path), tmp_path / "policy.npz"
    cache = Cache(tmp_path / "runs", Execution())
    for _ in range(2):
        select_members(network, policy, [SETTING], SelectionTraining(4), "pairs", (0, 0), cache)
        found = load_policy(policy)
        assert found.regret is not None
        assert found.regret.members == ("network", "lmetric")
        assert found.training == {"timesteps": 1}
        assert all((load_policy(network).weights[name] == weight).all() for name, weight in found.weights.items())
    played = read_episodes(tmp_path / "episodes.npz")
    assert played.members == ("network", "lmetric")
    assert played.contexts.shape[0] == len(played.regret) == 4
    assert "the rule that the tree below selects" in (tmp_path / "selection.txt").read_text()
    workload, _ = draw_episode(SETTING.source, 0, 1)
    selected = LearnedPolicy(policy)
    play_rule(workload, selected, SETTING.config)
    assert selected.handed_over > 0.5 * selected.decisions  # the untrained network is worse than the rule


@pytest.mark.slow
def test_a_selection_learns_from_the_episodes_of_earlier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_selection, "RULES", (PolicySpec.parse("lmetric"), PolicySpec.parse("static")))
    network, cache = untrained(tmp_path), Cache(tmp_path / "runs", Execution())
    members = ("lmetric", "network", "other")
    contexts = np.random.default_rng(0).uniform(size=(30, 24, len(CONTEXT)))
    for worst in (0, 1):
        regret = np.tile(np.eye(3)[worst], (30, 1))
        earlier, policy = tmp_path / f"earlier-{worst}.npz", tmp_path / str(worst) / "policy.npz"
        policy.parent.mkdir()
        write_episodes(earlier, SelectionEpisodes(members, contexts, regret, 0.1 * regret))
        select_members(network, policy, [SETTING], SelectionTraining(4, earlier=(earlier,)), "pairs", (0, 0), cache)
        model = load_policy(policy).regret
        assert model is not None
        assert model.members == ("network", "lmetric")  # there are no results of static
        predicted = np.array([model.predict(context) for context in contexts[:, 0]])
        assert (predicted.argmin(axis=1) == worst).mean() > 0.9  # members are in the other order there
        assert len(read_episodes(policy.with_name("episodes.npz")).regret) == 4
