"""The tables of policies: rules by name, and what reads the files of trained policies.

A rule that has knobs may name in `grid`, a mapping of knob to values, those worth trying; `experiments.tune` tries
them.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.always_local import AlwaysLocal
from policies.arrow import Arrow
from policies.colocated import Colocated
from policies.dynamo import DynamoISL, DynamoISLOrLoad, DynamoLegacy, DynamoLoad
from policies.dynaserve import DynaServe
from policies.fixed import Random, RoundRobin, Static
from policies.kairos import Kairos
from policies.llm_d import LlmD
from policies.lmetric import LMetric
from policies.lookahead import Lookahead
from policies.mooncake import Mooncake
from policies.prefix_load import PrefixLoad
from policies.shortest_ttft import ShortestTTFT
from policies.splitwise import Splitwise
from policies.static_share import StaticShare
from policies.taichi import TaiChi

RULES: dict[str, type] = {
    rule.name: rule
    for rule in (
        Random,
        RoundRobin,
        Static,
        AlwaysLocal,
        StaticShare,
        Colocated,
        LMetric,
        Splitwise,
        DynamoLegacy,
        DynamoISL,
        DynamoLoad,
        DynamoISLOrLoad,
        LlmD,
        PrefixLoad,
        Mooncake,
        TaiChi,
        Arrow,
        DynaServe,
        ShortestTTFT,
        Kairos,
        Lookahead,
    )
}
LOADERS = {
    ".npz": "agents.placement_policy:LearnedPolicy",
    ".zip": "agents.model_zip:StableBaselinesPolicy",
    ".json": "agents.linear_policy:LinearPolicy",
}
"""The class that reads a trained policy, by the suffix of its file: `module:Class`, imported when it is needed."""

TRAINED: dict[str, Path] = {"ppo": Path(__file__).with_name("ppo.npz")}
"""Trained policies that ship with the project, by name; docs/model_card.md describes them."""

CATCH_ALL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def names() -> list[str]:
    """Names of the registered rules that a router could run."""
    return [name for name in RULES if name not in bounds()]


def bounds() -> list[str]:
    """Names of the registered rules that are clairvoyant: bounds on the others, and slow."""
    return [name for name, rule in RULES.items() if getattr(rule, "clairvoyant", False)]


def knobs(name: str) -> dict[str, Any]:
    """The knobs of a registered rule and their defaults."""
    parameters = inspect.signature(RULES[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "seed" and one.kind not in CATCH_ALL}


def grid(name: str) -> Mapping[str, tuple[Any, ...]]:
    """Values worth trying of a registered rule's knobs; empty for a rule that names none."""
    values: Mapping[str, tuple[Any, ...]] = getattr(RULES[name], "grid", {})
    return values
