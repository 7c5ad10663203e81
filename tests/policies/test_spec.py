"""Policies by name: labels, knobs, users' classes, trained files; and mistakes, each in one line."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError
from policies import PolicySpec
from policies.kairos import Kairos
from policies.registry import LOADERS, RULES
from tests.policies.states import HandMade, asks, behind, decoding


class ToNode:
    """A user's rule, with a knob and a seed."""

    name = "to-node"

    def __init__(self, node: int = 0, seed: int = 0) -> None:
        self.node = node
        self.seed = seed

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002
        return Placement(self.node, view.topology.decode_nodes[0])


class Seer(ToNode):
    clairvoyant = True


class NeedsMore(ToNode):
    def __init__(self, node: int) -> None:
        super().__init__(node)


class NoRule:
    pass


class Loaded(ToNode):
    """A trained policy, for files whose suffix is `.toy`."""

    paths: list[Path] = []  # noqa: RUF012 - each test has a new list

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.paths.append(path)


HERE = __name__


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Makes `.toy` a suffix of trained policies; the paths that were loaded."""
    monkeypatch.setitem(LOADERS, ".toy", f"{HERE}:Loaded")
    monkeypatch.setattr(Loaded, "paths", [])
    return Loaded.paths


@pytest.mark.parametrize("name", policies.names())
def test_a_registered_name_makes_the_policy_of_that_name(name: str) -> None:
    policy = policies.make(name)
    assert policy.name == name
    assert policies.make(name) is not policy
    assert isinstance(policy.place(asks(1000), HandMade("2P2D")), Placement)


def test_a_registered_name_is_either_a_rule_or_a_bound() -> None:
    assert {"random", "round-robin", "static", "always-local", "kairos"} <= set(policies.names())
    assert policies.bounds() == ["lookahead"]
    assert sorted([*policies.names(), *policies.bounds()]) == sorted(RULES)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("kairos:alpha=1.0", Kairos(alpha=1.0)),
        ("kairos:alpha=2", Kairos(alpha=2.0)),
        ("kairos:transfer=false,alpha=1.0", Kairos(alpha=1.0, transfer=False)),
        ("kairos:transfer=TRUE,beta=0.9,cap=2", Kairos(beta=0.9, cap=2)),
        ("kairos:queue_chunk=budget", Kairos(queue_chunk="budget")),
        ("mine=kairos:cap=3", Kairos(cap=3)),
    ],
)
def test_knobs_reach_the_rule(name: str, same: Kairos) -> None:
    assert vars(policies.make(name)) == vars(same)


@given(alpha=st.floats(1, 100), beta=st.floats(0.01, 1), cap=st.integers(1, 99), transfer=st.booleans())
def test_any_value_of_a_knob_comes_through(alpha: float, beta: float, cap: int, transfer: bool) -> None:
    name = f"kairos:alpha={alpha},beta={beta},cap={cap},transfer={str(transfer).lower()}"
    assert vars(policies.make(name)) == vars(Kairos(alpha=alpha, beta=beta, cap=cap, transfer=transfer))


def test_a_users_class_is_made_by_module_and_name() -> None:
    policy = policies.make(f"{HERE}:ToNode", seed=5)
    assert isinstance(policy, ToNode)
    assert policy.seed == 5
    assert policy.place(asks(1000), HandMade("2P2D")) == Placement(0, 2)


@pytest.mark.parametrize("label", ["", "mine="])
def test_a_users_class_takes_a_label_and_knobs(label: str) -> None:
    assert policies.make(f"{label}{HERE}:ToNode:node=3").node == 3
    assert policies.make(f"{label}{HERE}:NeedsMore:node=2").node == 2
    spec = PolicySpec.parse(f"{label}{HERE}:ToNode:node=3")
    assert spec.label == ("mine" if label else f"{HERE}:ToNode:node=3")
    assert spec.rule_class() is ToNode
    assert spec.source == Path(__file__)


def test_a_users_class_may_be_clairvoyant() -> None:
    assert PolicySpec.parse(f"{HERE}:Seer").clairvoyant
    assert PolicySpec.parse(f"all={HERE}:Seer").label == "all (clairvoyant)"
    assert not PolicySpec.parse(f"{HERE}:ToNode").clairvoyant


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "unknown policy ''"),
        ("kairo", "unknown policy 'kairo'; did you mean 'kairos'? known: random, round-robin"),
        ("Kairos", "unknown policy 'Kairos'; did you mean 'kairos'?"),
        ("kairo:alpha=2", "unknown policy 'kairo'; did you mean 'kairos'?"),
        ("careful=kairo:alpha=1.5,beta=0.9", "unknown policy 'kairo'; did you mean 'kairos'?"),
        ("mine=shortest_ttft", "did you mean 'shortest-ttft'?"),
        ("runs/a/policy.bin", "unknown policy 'runs/a/policy.bin'; known: random"),
        ("runs/a/policy.bin", "; or give module:Class, or a trained policy's file (.npz, .zip"),
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
        (f"{HERE}:NeedsMore", f"needs a value for node, as {HERE}:NeedsMore:node=VALUE"),
        (f"{HERE}:ToNode:nodes=1", "has no knob 'nodes'; its knobs: node"),
        (f"{HERE}:ToNode:node=one", "knob node must be a int, not 'one'"),
        (":ToNode", "policy :ToNode"),
        (".states:ToNode", "policy .states:ToNode"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(name: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        policies.make(name)
    assert "\n" not in str(caught.value)
    assert not PolicySpec.parse(name).clairvoyant


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
def test_a_trained_policys_file_is_loaded_and_named(loaded: list[Path], name: str, path: str, label: str) -> None:
    assert isinstance(policies.make(name), Loaded)
    assert loaded == [Path(path)]
    spec = PolicySpec.parse(name)
    assert (spec.path, spec.source, spec.label) == (Path(path), Path(path), label)
    assert spec.learned
    assert not spec.clairvoyant


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("static", ("", "static", "")),
        ("mine=static", ("mine", "static", "")),
        ("kairos:alpha=1.5,cap=2", ("", "kairos", "alpha=1.5,cap=2")),
        ("mine=kairos:alpha=1.5,cap=2", ("mine", "kairos", "alpha=1.5,cap=2")),
        ("mine=kairos:alpha=1.toy", ("mine", "kairos", "alpha=1.toy")),
        (f"{HERE}:ToNode", ("", f"{HERE}:ToNode", "")),
        (f"mine={HERE}:ToNode:node=1", ("mine", f"{HERE}:ToNode", "node=1")),
        ("lookahead:base=kairos:beta=0.9,cap=2+static", ("", "lookahead", "base=kairos:beta=0.9,cap=2+static")),
        (
            "ahead=lookahead:horizon=20,base=kairos:beta=0.9+static",
            ("ahead", "lookahead", "horizon=20,base=kairos:beta=0.9+static"),
        ),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_a_rules_name_is_label_rule_and_knobs(name: str, spec: tuple[str, str, str]) -> None:
    parsed = PolicySpec.parse(name)
    assert parsed == PolicySpec(*spec, None)
    assert parsed.clairvoyant == (spec[1] == "lookahead")
    assert parsed.label.removesuffix(" (clairvoyant)") == (spec[0] or name)
    assert not parsed.learned


@pytest.mark.parametrize("name", ["static", "kairos:alpha=1.5,cap=2", f"{HERE}:ToNode"])
def test_other_names_are_their_own_labels(loaded: list[Path], name: str) -> None:
    spec = PolicySpec.parse(name)
    assert (spec.label, spec.path) == (name, None)
    policies.make(name)
    assert not loaded


@given(
    label=st.from_regex(r"([A-Za-z][\w .()-]*)?", fullmatch=True),
    text=st.sampled_from(
        [
            "static",
            "kairos:beta=0.9,cap=2",
            f"{HERE}:ToNode:node=1",
            "runs/a/policy.npz",
            "runs/a/policy.npz:guard=false",
            "lookahead:base=kairos:cap=2",
        ]
    ),
)
def test_the_text_of_a_spec_parses_to_the_same_spec(label: str, text: str) -> None:
    spec = PolicySpec.parse(f"{label}={text}" if label else text)
    assert PolicySpec.parse(str(spec)) == spec
    assert (spec.alias, spec.text) == (label, text)


@given(st.text(max_size=40))
def test_any_text_is_a_policy_or_invalid_input(name: str) -> None:
    spec = PolicySpec.parse(name)
    assert PolicySpec.parse(str(spec)) == spec
    assert isinstance(spec.label, str)
    with suppress(InputError):
        spec.rule_class()


def test_a_knob_at_its_bound_is_taken() -> None:
    view = HandMade("1P1D", behind(8000), decoding(1, 100))
    assert policies.make("kairos:alpha=1,beta=1,cap=1").place(asks(1000), view).prefill_node == 1
