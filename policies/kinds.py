"""Kinds of placement rules: how a rule treats the roles of nodes."""

from typing import Literal, get_args

from hardware_profiles import InputError
from policies.registry import RULES
from policies.spec import PolicySpec

Kind = Literal["disaggregated", "deflecting", "role-free", "other"]
"""How a rule treats the roles of nodes.

- disaggregated: prompts are prefilled on prefill nodes only, and decoded on decode nodes only;
- deflecting: roles are kept, but prompts may also be prefilled, whole or in part, on decode nodes;
- role-free: any node may prefill and decode, or nodes change roles;
- other: learned policies, users' classes and clairvoyant bounds.
"""
RULE_KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "other")
ROLE_KEEPING: tuple[Kind, ...] = ("disaggregated", "deflecting")

KIND_OF_RULE: dict[str, Kind] = {
    "random": "disaggregated",
    "round-robin": "disaggregated",
    "static": "disaggregated",
    "mooncake": "disaggregated",
    "prefix-load": "disaggregated",
    "always-local": "deflecting",
    "static-share": "deflecting",
    "splitwise": "deflecting",
    "dynamo-legacy": "deflecting",
    "dynamo-isl": "deflecting",
    "dynamo-load": "deflecting",
    "dynamo-isl-or-load": "deflecting",
    "llm-d": "deflecting",
    "taichi": "deflecting",
    "dynaserve": "deflecting",
    "shortest-ttft": "deflecting",
    "kairos": "deflecting",
    "colocated": "role-free",
    "arrow": "role-free",
    "lmetric": "role-free",
    "lookahead": "other",
}
_ROLE_FREE_KNOB = "choices=pairs"
"""The setting with which a deflecting rule chooses among all pairs of nodes, whatever their roles."""


def kind_of(policy: PolicySpec) -> Kind:
    """The kind of a policy.

    Raises:
        InputError: a registered rule that is not in the table of kinds, or a name that means nothing.
    """
    if policy.learned:
        return "other"
    if policy.rule not in RULES:
        policy.rule_class()  # raises InputError if the name means nothing
        return "other"
    if policy.rule not in KIND_OF_RULE:
        raise InputError(f"the kind of rule {policy.rule!r} is not known; add it to the table in policies/kinds.py")
    return "role-free" if _ROLE_FREE_KNOB in policy.params.split(",") else KIND_OF_RULE[policy.rule]
