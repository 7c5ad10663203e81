"""Policies by name: knobs, classes of one's own, and mistakes told in one line."""

from pathlib import Path

import pytest

import policies
from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError
from policies import registry
from policies.kairos import Kairos
from policies.registry import PolicySpec
from tests.policies.states import HandMade, asks, behind, decoding


class ToNode:
    """A rule of one's own, with a knob and a seed."""

    name = "to-node"

    def __init__(self, node: int = 0, seed: int = 0) -> None:
        self.node = node
        self.seed = seed

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        return Placement(self.node, view.topology.decode_nodes[0])


class NeedsMore(ToNode):
    def __init__(self, node: int) -> None:
        super().__init__(node)


class NoRule:
    pass


HERE = __name__


@pytest.mark.parametrize("name", policies.names())
def test_a_registered_name_makes_the_policy_of_that_name(name: str) -> None:
    policy = policies.make(name)
    assert policy.name == name
    assert policies.make(name) is not policy
    assert isinstance(policy.place(asks(1000), HandMade("2P2D")), Placement)


def test_what_the_path_needs_is_registered() -> None:
    assert {"random", "round-robin", "static", "always-local", "kairos"} <= set(policies.names())


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("kairos:alpha=1.0", Kairos(alpha=1.0)),
        ("kairos:alpha=2", Kairos(alpha=2.0)),
        ("kairos:transfer=false,alpha=1.0", Kairos(alpha=1.0, transfer=False)),
        ("kairos:transfer=TRUE,beta=0.9,cap=2", Kairos(beta=0.9, cap=2)),
        ("kairos:queue_chunk=budget", Kairos(queue_chunk="budget")),
    ],
)
def test_knobs_reach_the_rule(name: str, same: Kairos) -> None:
    assert vars(policies.make(name)) == vars(same)


def test_a_class_of_ones_own_is_made_by_module_and_name() -> None:
    policy = policies.make(f"{HERE}:ToNode", seed=5)
    assert isinstance(policy, ToNode)
    assert policy.seed == 5
    assert policy.place(asks(1000), HandMade("2P2D")) == Placement(0, 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "no policy ''"),
        ("kairo", "no policy 'kairo'; registered are random, round-robin"),
        ("Kairos", "no policy 'Kairos'"),
        ("kairo:alpha=2", "no policy 'kairo:alpha=2'"),
        ("runs/a/policy.bin", "no policy 'runs/a/policy.bin'"),
        ("round-robin:alpha=1", "round-robin has no knob 'alpha'; its knobs: none"),
        ("static:alpha=1", "static has no knob 'alpha'; its knobs: prefix"),
        ("kairos:gamma=1", "kairos has no knob 'gamma'; its knobs: alpha, beta, cap, transfer, queue_chunk"),
        ("kairos:alpha", "give knob alpha a value"),
        ("kairos:alpha=", "alpha must be a float, not ''"),
        ("kairos:alpha=high", "alpha must be a float, not 'high'"),
        ("kairos:alpha=0.9", "alpha must be a number from 1 on, not 0.9"),
        ("kairos:alpha=nan", "alpha must be a number from 1 on"),
        ("kairos:alpha=inf", "alpha must be a number from 1 on"),
        ("kairos:beta=0", "beta must be above 0 and at most 1"),
        ("kairos:beta=1.01", "beta must be above 0 and at most 1"),
        ("kairos:beta=nan", "beta must be above 0"),
        ("kairos:cap=0", "cap must be at least 1"),
        ("kairos:cap=1.5", "cap must be a int"),
        ("kairos:transfer=maybe", "transfer must be true or false, not 'maybe'"),
        ("kairos:queue_chunk=all", "queue_chunk must be prompt or budget, not all"),
        ("random:seed=3", "random has no knob 'seed'"),
        ("no_such_module:Rule", "policy no_such_module:Rule: No module named"),
        (f"{HERE}:NoSuchRule", "NoSuchRule"),
        (f"{HERE}:NoRule", "not a class with a method place"),
        (f"{HERE}:asks", "not a class with a method place"),
        (f"{HERE}:NeedsMore", "NeedsMore"),
        (":ToNode", "policy :ToNode"),
        (".states:ToNode", "policy .states:ToNode"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(name: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        policies.make(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Makes `.toy` the suffix of trained policies; the paths that it loads."""
    loaded: list[Path] = []

    def load(path: Path) -> ToNode:
        loaded.append(path)
        return ToNode()

    monkeypatch.setattr(registry, "_LOADERS", {})
    policies.register_loader(".toy", load)
    return loaded


@pytest.mark.parametrize(
    ("name", "path", "label"),
    [
        ("runs/a/policy.toy", "runs/a/policy.toy", "policy.toy"),
        ("mine=runs/a/policy.toy", "runs/a/policy.toy", "mine"),
        ("policy.toy", "policy.toy", "policy.toy"),
        ("mine=policy.toy", "policy.toy", "mine"),
        ("runs/seed=1/policy.toy", "runs/seed=1/policy.toy", "policy.toy"),
        ("/runs/seed=1,rate=2/policy.toy", "/runs/seed=1,rate=2/policy.toy", "policy.toy"),
        ("./seed=1/policy.toy", "seed=1/policy.toy", "policy.toy"),
        ("mine=runs/seed=1/policy.toy", "runs/seed=1/policy.toy", "mine"),
        ("mine=runs/with=equals.toy", "runs/with=equals.toy", "mine"),
        ("seed=1=policy.toy", "1=policy.toy", "seed"),
        ("kairos=kairos.toy", "kairos.toy", "kairos"),
    ],
)
def test_a_trained_policys_file_is_loaded_and_named(loader: list[Path], name: str, path: str, label: str) -> None:
    assert isinstance(policies.make(name), ToNode)
    assert loader == [Path(path)]
    assert policies.trained_path(name) == Path(path)
    assert policies.label(name) == label
    assert not policies.clairvoyant(name)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("static", ("", "static", "")),
        ("mine=static", ("mine", "static", "")),
        ("kairos:alpha=1.5,cap=2", ("", "kairos", "alpha=1.5,cap=2")),
        ("mine=kairos:alpha=1.5,cap=2", ("mine", "kairos", "alpha=1.5,cap=2")),
        ("mine=kairos:alpha=1.toy", ("mine", "kairos", "alpha=1.toy")),
        (f"{HERE}:ToNode", ("", f"{HERE}:ToNode", "")),
        (
            "lookahead:base=kairos:beta=0.9,cap=2+static",
            ("", "lookahead", "base=kairos:beta=0.9,cap=2+static"),
        ),
        (
            "ahead=lookahead:horizon=20,base=kairos:beta=0.9+static",
            ("ahead", "lookahead", "horizon=20,base=kairos:beta=0.9+static"),
        ),
    ],
)
@pytest.mark.usefixtures("loader")
def test_a_rules_name_is_label_rule_and_knobs(name: str, spec: tuple[str, str, str]) -> None:
    assert PolicySpec.parse(name) == PolicySpec(*spec, None)
    assert policies.clairvoyant(name) == (spec[1] == "lookahead")
    assert policies.label(name).removesuffix(" (clairvoyant)") == (spec[0] or name)


@pytest.mark.parametrize("name", ["static", "kairos:alpha=1.5,cap=2", f"{HERE}:ToNode"])
def test_other_names_are_their_own_labels(loader: list[Path], name: str) -> None:
    assert policies.label(name) == name
    assert policies.trained_path(name) is None
    policies.make(name)
    assert not loader


def test_a_knob_at_its_bound_is_taken() -> None:
    view = HandMade("1P1D", behind(8000), decoding(1, 100))
    assert policies.make("kairos:alpha=1,beta=1,cap=1").place(asks(1000), view).prefill_node == 1
