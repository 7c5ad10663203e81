"""Every registered rule has a kind, which says what it does with the roles of nodes."""

import pytest

import policies
from hardware_profiles import InputError
from policies import PolicySpec
from policies.kinds import KIND_OF_RULE, ROLE_KEEPING, RULE_KINDS, kind_of
from policies.registry import RULES
from tests.policies.test_spec import ToNode


def test_the_table_of_kinds_names_every_registered_rule_and_no_other() -> None:
    assert KIND_OF_RULE.keys() == RULES.keys()


@pytest.mark.parametrize("name", policies.names())
def test_a_rule_that_routers_can_run_has_one_of_the_rule_kinds(name: str) -> None:
    assert kind_of(PolicySpec.parse(name)) in RULE_KINDS
    assert kind_of(PolicySpec.parse(f"mine={name}")) == kind_of(PolicySpec.parse(name))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("static", "disaggregated"),
        ("kairos:beta=0.9", "deflecting"),
        ("shortest-ttft", "deflecting"),
        ("shortest-ttft:choices=deflection", "deflecting"),
        ("shortest-ttft:choices=pairs", "role-free"),
        ("free=shortest-ttft:choices=pairs", "role-free"),
        ("colocated", "role-free"),
        ("lookahead:horizon=3", "other"),
        ("runs/a/policy.npz", "other"),
        (f"{ToNode.__module__}:ToNode:node=1", "other"),
    ],
)
def test_the_kind_of_a_policy(name: str, kind: str) -> None:
    assert kind_of(PolicySpec.parse(name)) == kind


def test_rules_that_keep_roles_are_some_of_the_kinds() -> None:
    assert set(ROLE_KEEPING) == set(RULE_KINDS) - {"role-free"}


def test_a_name_that_means_nothing_has_no_kind() -> None:
    with pytest.raises(InputError, match="unknown policy 'kairo'; did you mean 'kairos'"):
        kind_of(PolicySpec.parse("kairo"))


def test_a_rule_missing_in_the_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "to-node", ToNode)
    with pytest.raises(InputError, match="the kind of rule 'to-node' is not known; add it to the table"):
        kind_of(PolicySpec.parse("to-node"))
