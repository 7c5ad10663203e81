"""Selection from a portfolio: the context, the fit, and the policy that follows the selected member."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from agents.context import CONTEXT, PERIOD_S
from agents.cost_policy import CostPolicy
from agents.evolution import STARTS
from agents.placement_network import PlacementNetwork
from agents.placement_policy import LearnedPolicy, current_layout
from agents.policy_file import PolicyFile, load_policy, save_policy, write_policy
from agents.regret import MISSED
from agents.selection import NETWORK, RegretModel, Selection
from agents.selection_fit import fit
from envs.choice_cost import TERMS
from envs.cluster import Cluster, ClusterConfig, Placement, RequestView, RouterView, simulate
from envs.generators import generate
from hardware_profiles import InputError, load_profile

RULES = ("static", "lmetric")
MEMBERS = (NETWORK, *RULES)
WORKLOAD = generate("burst", rate_rps=8.0, requests=120, seed=1)
CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))


def model(bias: tuple[float, ...] = (0.0, 0.0, 0.0), members: tuple[str, ...] = MEMBERS, seed: int = 0) -> RegretModel:
    """A model whose predictions are `bias` in every context, or random ones added to it with a seed above 0."""
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.normal(size=shape) * (seed > 0)).astype(np.float32)
        for name, shape in RegretModel.shapes(2, 5, len(members)).items()
    }
    weights |= {"high": np.ones_like(weights["high"]), "low": np.zeros_like(weights["low"])}
    weights["regret.bias"] = np.tile(np.array(bias, np.float32), (2, 1))
    return RegretModel(members, weights)


# ---- model -----------------------------------------------------------------------------------------------------------


def test_the_fit_selects_the_better_member_in_new_contexts_and_is_repeatable() -> None:
    rng = np.random.default_rng(0)
    of_episode = rng.random((300, len(CONTEXT)))
    regret = np.stack([of_episode[:, 0] > 0.5, of_episode[:, 0] <= 0.5], axis=1).astype(float)
    episode = np.repeat(np.arange(300), 2)
    contexts = of_episode[episode] + 0.01 * rng.normal(size=(600, len(CONTEXT)))
    given_ = ("a", "b"), contexts, episode, regret, 0.3 * regret
    fitted, held_out = fit(*given_, seed=3, folds=2, epochs=40)
    assert held_out < 0.15
    new = rng.random((200, len(CONTEXT)))
    regrets, missed = (np.array(both) for both in zip(*map(fitted.predict_both, new), strict=True))
    worse = np.stack([new[:, 0] > 0.5, new[:, 0] <= 0.5], axis=1)
    assert np.mean(regrets.argmin(axis=1) == worse.argmin(axis=1)) > 0.9
    assert missed[worse].mean() > 0.2
    assert missed[~worse].mean() < 0.1
    assert fitted.weights["mean"] == pytest.approx(regret.mean(axis=0))
    again, _ = fit(*given_, seed=3, folds=2, epochs=40)
    assert all((again.weights[name] == weight).all() for name, weight in fitted.weights.items())


def test_episodes_are_held_out_where_the_fit_says_so() -> None:
    """Regrets that do not depend on the context cannot be predicted, but for episodes that a network has learned."""
    rng = np.random.default_rng(0)
    contexts = rng.random((60, len(CONTEXT)))
    worst = rng.integers(2, size=60)
    regret = np.eye(2)[worst]
    fitted, held_out = fit(("a", "b"), contexts, np.arange(60), regret, regret, seed=3, folds=2, epochs=60)
    learned = np.array([fitted.predict(context) for context in contexts]).argmin(axis=1)
    assert (learned == worst).mean() < 0.3
    assert held_out > 0.3


@settings(max_examples=20)
@given(st.integers(1, 1000))
def test_contexts_beyond_the_training_count_as_its_limits(seed: int) -> None:
    one = model(seed=seed)
    context = np.random.default_rng(seed).normal(size=len(CONTEXT))
    assert (one.predict(context) == one.predict(np.clip(context, 0.0, 1.0))).all()


@settings(max_examples=20)
@given(st.integers(1, 1000))
def test_a_prediction_is_the_mean_root_of_the_networks(seed: int) -> None:
    one = model(seed=seed)
    context = np.random.default_rng(seed).normal(size=len(CONTEXT))
    w, roots, logs = one.weights, [], []
    for number in range(2):
        hidden = np.tanh(w["first.weight"][number] @ one.scaled(context) + w["first.bias"][number])
        hidden = np.tanh(w["second.weight"][number] @ hidden + w["second.bias"][number])
        roots.append(w["regret.weight"][number] @ hidden + w["regret.bias"][number])
        logs.append(w["missed.weight"][number] @ hidden + w["missed.bias"][number])
    root = np.mean(roots, axis=0)
    assert one.predict(context) == pytest.approx(np.sign(root) * root**2, rel=1e-5, abs=1e-6)
    regret, missed = one.predict_both(context)
    assert np.array_equal(regret, one.predict(context))
    assert missed == pytest.approx(np.clip(np.exp(np.mean(logs, axis=0)) - MISSED, 0.0, 1.0), rel=1e-5, abs=1e-6)


def selected(selection: Selection, count: int = 20) -> list[int]:
    """The members that are selected for `count` requests, two periods apart, on an idle cluster."""
    cluster = Cluster(CONFIG, lambda _: None)
    found = []
    for number in range(count):
        cluster.clock.advance_to(2.0 * PERIOD_S * number)
        request = RequestView(number, cluster.clock.now, 100 + number, 2.0, 0.1)
        found.append(selection.select(request, cluster.view()))
    return found


@settings(max_examples=20)
@given(st.integers(1, 1000), st.sets(st.integers(0, 2), min_size=1))
def test_only_allowed_members_are_selected(seed: int, allowed: set[int]) -> None:
    assert set(selected(Selection(model(seed=seed), sorted(allowed)))) <= allowed


@pytest.mark.parametrize(("gain", "expected"), [(0.01, 1), (0.1, 2)])
def test_a_small_gain_changes_nothing(gain: float, expected: int) -> None:
    selection = Selection(model((1.0, 0.3, 0.4)), [0, 1, 2])
    assert selected(selection, 2) == [1, 1]
    selection._model = model((1.0, 0.3, 0.3 - gain))
    request = RequestView(2, 2.0, 100, 2.0, 0.1)
    cluster = Cluster(CONFIG, lambda _: None)
    cluster.clock.advance_to(2.0)
    assert selection.select(request, cluster.view()) == expected


@pytest.mark.parametrize(
    ("bad", "feedback", "expected"),
    [(set(), True, 0), ({0}, True, 1), ({0, 1}, True, 2), ({2}, True, 0), ({0}, False, 0)],
)
def test_members_that_miss_more_slos_than_expected_are_left(bad: set[int], feedback: bool, expected: int) -> None:
    """All members are expected to miss none; the bad ones miss half."""
    one = model((0.0, 0.3, 0.4))
    one.weights["missed.bias"][:] = np.log(MISSED)
    selection = Selection(one, [0, 1, 2], feedback)
    cluster = Cluster(CONFIG, lambda _: None)
    finished = missed = 0
    for number in range(20):
        cluster.clock.advance_to(2.0 * PERIOD_S * number)
        view = cluster.view()
        view.counters.finished_count, view.counters.missed_count = finished, missed
        current = selection.select(RequestView(number, cluster.clock.now, 100, 2.0, 0.1), view)
        finished, missed = finished + 100, missed + 50 * (current in bad)
    assert current == expected


# ---- policies --------------------------------------------------------------------------------------------------------

LOADED = generate("burst", rate_rps=8.0, requests=900, seed=2)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.npz"
    layout = current_layout("pairs")
    torch.manual_seed(0)
    save_policy(path, PlacementNetwork(layout.sizes, hidden=4), layout, {"timesteps": 1})
    return path


def portfolio(network: Path, regret: RegretModel) -> Path:
    path = network.with_name("policy.npz")
    write_policy(path, load_policy(network)._replace(regret=regret))
    return path


@pytest.mark.parametrize("member", range(3))
def test_the_selected_member_places_all_requests(member: int, network: Path) -> None:
    path = portfolio(network, model(tuple(0.5 * (index != member) for index in range(3))))
    policy = LearnedPolicy(path)
    alone = policies.make(str(network)) if member == 0 else policies.make(MEMBERS[member])
    assert simulate(WORKLOAD, policy, CONFIG).records == simulate(WORKLOAD, alone, CONFIG).records
    assert (policy.handed_over, policy.decisions) == (len(WORKLOAD) * (member > 0), len(WORKLOAD))


def test_a_second_run_is_like_the_first(network: Path) -> None:
    policy = LearnedPolicy(portfolio(network, model((0.2, 0.2, 0.2), seed=52)))
    first, second = (simulate(LOADED, policy, CONFIG).records for _ in range(2))
    assert first == second
    assert policy.handed_over > 0


class Caught:
    """A learned policy that does what it has put off after each decision, as a live router lets it.

    Attributes:
        members: the member of each decision.
    """

    name = "caught"

    def __init__(self, policy: LearnedPolicy) -> None:
        self.policy = policy
        self.members: list[int] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        placement = self.policy.place(request, view)
        assert self.policy._selection is not None
        self.members.append(self.policy._selection.current)
        self.policy.catch_up()
        return placement


def test_in_use_a_change_of_the_member_takes_effect_one_request_later(network: Path) -> None:
    # The same placements, so the contexts are the same.
    alike = tuple(f"shortest-ttft:alpha={alpha}" for alpha in ("0.9", "0.90", ".9"))
    path = portfolio(network, model((0.2, 0.2, 0.2), members=alike, seed=1))
    usual, in_use = (Caught(LearnedPolicy(path)) for _ in range(2))
    in_use.policy.put_in_use()
    first, second = (simulate(LOADED, one, CONFIG).records for one in (usual, in_use))
    assert first == second
    assert in_use.members == [usual.members[0], *usual.members[:-1]]
    assert len(set(usual.members)) > 1


@pytest.mark.parametrize(("members", "alone"), [("network", None), ("rules", "lmetric")])
def test_members_can_be_left_out(members: str, alone: str | None, network: Path) -> None:
    path = portfolio(network, model((0.1, 0.9, 0.3) if alone else (0.9, 0.1, 0.3)))
    policy = LearnedPolicy(path, members=members)
    expected = policies.make(alone or str(network))
    assert simulate(WORKLOAD, policy, CONFIG).records == simulate(WORKLOAD, expected, CONFIG).records


@pytest.mark.parametrize("fewer", [1, 3])
def test_a_file_without_the_last_parts_of_a_context_selects_without_them(network: Path, fewer: int) -> None:
    path = portfolio(network, model((0.2, 0.2, 0.2), seed=1))
    whole = load_policy(path).regret
    assert whole is not None
    arrays, metadata = dict(np.load(path)), json.loads(str(np.load(path)["metadata"]))
    for name in ("low", "high", "first.weight"):
        arrays[f"regret.{name}"] = arrays[f"regret.{name}"][..., :-fewer]
    metadata["portfolio"]["context"] = metadata["portfolio"]["context"][:-fewer]
    np.savez(path, allow_pickle=False, **{**arrays, "metadata": np.array(json.dumps(metadata))})
    older = load_policy(path).regret
    assert older is not None
    rng = np.random.default_rng(0)
    contexts, others = rng.random((2, 20, len(CONTEXT)))
    others[:, :-fewer] = contexts[:, :-fewer]
    for context, other in zip(contexts, others, strict=True):
        assert older.predict(context) == pytest.approx(older.predict(other))
    assert not np.allclose(whole.predict(contexts[0]), whole.predict(others[0]))

    metadata["portfolio"]["context"] = metadata["portfolio"]["context"][1:]
    np.savez(path, allow_pickle=False, **{**arrays, "metadata": np.array(json.dumps(metadata))})
    with pytest.raises(InputError, match="selected by other features"):
        load_policy(path)


def with_costs(network: Path) -> Path:
    """A portfolio of the network, two costs and a rule, in which the second cost has the least regret."""
    path = network.with_name("policy.npz")
    costs = {"cost-a": STARTS["lmetric"], "cost-b": STARTS["disaggregated"]}
    regret = model((0.9, 0.5, 0.1, 0.3), (NETWORK, *costs, "static"))
    write_policy(path, load_policy(network)._replace(regret=regret, costs=costs))
    return path


@pytest.mark.parametrize(
    ("members", "start"), [("costs", "disaggregated"), ("all", "disaggregated"), ("cost-a", "lmetric")]
)
def test_costs_are_members(members: str, start: str, network: Path) -> None:
    policy = LearnedPolicy(with_costs(network), members=members)
    expected = CostPolicy("cost", STARTS[start])
    assert simulate(WORKLOAD, policy, CONFIG).records == simulate(WORKLOAD, expected, CONFIG).records
    assert (policy.handed_over, policy.decisions) == (0, len(WORKLOAD))  # costs are learned


def test_a_file_keeps_its_costs(network: Path) -> None:
    found = load_policy(with_costs(network)).costs
    assert list(found) == ["cost-a", "cost-b"]
    np.testing.assert_allclose(found["cost-a"], STARTS["lmetric"], rtol=1e-6)
    assert not load_policy(network).costs
    with pytest.raises(InputError, match="members must be all, network, rules, costs, cost-a, cost-b, not 'cost-c'"):
        LearnedPolicy(with_costs(network), members="cost-c")
    with pytest.raises(InputError, match="the file selects among no costs"):
        LearnedPolicy(portfolio(network, model()), members="costs")


def test_a_file_from_before_a_term_was_added_has_a_weight_of_0_for_it(network: Path) -> None:
    path = with_costs(network)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["metadata"] = np.array(str(arrays["metadata"]).replace(f', "{TERMS[-1]}"', ""))
    arrays["cost.weights"] = arrays["cost.weights"][:, :-1] + 1.0
    np.savez(path, **arrays)
    expected = np.append(STARTS["lmetric"][:-1] + 1.0, 0.0)
    np.testing.assert_allclose(load_policy(path).costs["cost-a"], expected, rtol=1e-6)


def test_damaged_costs_are_refused(network: Path) -> None:
    path = with_costs(network)
    with np.load(path) as archive:
        whole = {name: archive[name] for name in archive.files}
    metadata = str(whole["metadata"])
    for changes, says in (
        (
            {"metadata": np.array(metadata.replace("queued_prompts", "queued"))},
            "its costs have a term 'queued' that this version does not have",
        ),
        ({"cost.weights": np.zeros((2, 3), np.float32)}, "weight 'cost.weights' has shape"),
    ):
        np.savez(path, allow_pickle=False, **(whole | changes))
        with pytest.raises(InputError, match=says):
            load_policy(path)
    del whole["cost.weights"]
    np.savez(path, allow_pickle=False, **whole)
    with pytest.raises(InputError, match="it names costs, but has no weights of them"):
        load_policy(path)


def test_a_file_keeps_its_portfolio(network: Path) -> None:
    path = portfolio(network, model(seed=5))
    first, second = model(seed=5), load_policy(path).regret
    assert second is not None
    assert second.members == MEMBERS
    assert all((second.weights[name] == weight).all() for name, weight in first.weights.items())
    assert load_policy(network).regret is None


def test_what_a_file_lacks_is_said(network: Path) -> None:
    with pytest.raises(InputError, match="the file selects among no rules"):
        LearnedPolicy(network, members="rules")
    with pytest.raises(InputError, match="members must be all, network, rules, costs, not 'some'"):
        LearnedPolicy(network, members="some")
    with pytest.raises(InputError, match="unknown policy 'stattic'"):
        LearnedPolicy(portfolio(network, model(members=(NETWORK, "stattic", "lmetric"))))


def broken(file: PolicyFile, name: str, array: np.ndarray) -> PolicyFile:
    assert file.regret is not None
    return file._replace(regret=replace(file.regret, weights={**file.regret.weights, name: array}))


def test_a_damaged_portfolio_is_refused(network: Path) -> None:
    path = portfolio(network, model())
    good = load_policy(path)
    for name, array in (("first.weight", np.zeros((5, 2), np.float32)), ("low", np.full(2, np.nan, np.float32))):
        write_policy(path, broken(good, name, array))
        with pytest.raises(InputError, match=rf"weight 'regret\.{name}' has shape"):
            load_policy(path)
    write_policy(path, good._replace(regret=RegretModel(MEMBERS, {})))
    with pytest.raises(InputError, match="no weights to select a member"):
        load_policy(path)
