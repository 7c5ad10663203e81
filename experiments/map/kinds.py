"""Kinds of placement rules: what a rule does with the roles of nodes."""

from typing import Literal, get_args

import policies
from hardware_profiles import InputError

Kind = Literal["disaggregated", "deflecting", "role-free", "other"]
"""What a rule does with the roles of nodes.

- disaggregated: prompts are prefilled on prefill nodes only, and decoded on decode nodes only;
- deflecting: roles are kept, but prompts may also be prefilled, whole or in part, on decode nodes;
- role-free: any node may prefill and decode, or nodes change roles;
- other: learned policies, users' classes and clairvoyant bounds; they take no part in the map.
"""
MAPPED_KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "other")
ROLE_KEEPING: tuple[Kind, ...] = ("disaggregated", "deflecting")

_KIND_OF_RULE: dict[str, Kind] = {
    "random": "disaggregated",
    "round-robin": "disaggregated",
    "static": "disaggregated",
    "mooncake": "disaggregated",
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
    "ppo": "other",
}
_ROLE_FREE_KNOB = "choices=pairs"
"""The setting with which a deflecting rule chooses among all pairs of nodes, whatever their roles."""


def kind_of(policy: str) -> Kind:
    """The kind of a policy.

    Args:
        policy: as `policies.make` takes it.

    Raises:
        InputError: a rule that is not in the table of kinds.
    """
    if policies.trained_path(policy) is not None:
        return "other"
    before, equals, rest = policy.partition("=")
    setting = rest if equals and ":" not in before else policy  # without LABEL=
    rule, _, knobs = setting.partition(":")
    if rule not in _KIND_OF_RULE:
        if knobs and "=" not in knobs:  # module:Class
            return "other"
        raise InputError(f"no kind is known for rule {rule!r}; add it to the table in experiments/map/kinds.py")
    return "role-free" if _ROLE_FREE_KNOB in knobs.split(",") else _KIND_OF_RULE[rule]
