"""Policies by name: `static`, `kairos:alpha=1.5,cap=2`, `module:Class`, or the file of a trained one.

A rule that has knobs may say in `grid`, a mapping of knob to values, which are worth trying; `experiments.tune` does.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.cluster import Policy
from hardware_profiles import InputError
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

_RULES: dict[str, type] = {
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
_CATCH_ALL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_LOADERS: dict[str, Callable[[Path], Policy]] = {}


def names() -> list[str]:
    """Names of the registered rules that a router could run."""
    return [name for name in _RULES if name not in bounds()]


def bounds() -> list[str]:
    """Names of the registered rules that are clairvoyant: bounds on the others, and slow."""
    return [name for name, rule in _RULES.items() if getattr(rule, "clairvoyant", False)]


def knobs(name: str) -> dict[str, Any]:
    """The knobs of a registered rule and their defaults."""
    parameters = inspect.signature(_RULES[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "seed" and one.kind not in _CATCH_ALL}


def grid(name: str) -> Mapping[str, tuple[Any, ...]]:
    """Values worth trying of a registered rule's knobs; empty for a rule that names none."""
    values: Mapping[str, tuple[Any, ...]] = getattr(_RULES[name], "grid", {})
    return values


def register_loader(suffix: str, loader: Callable[[Path], Policy]) -> None:
    """Let `make` load policy files that end in `suffix` (such as ".npz") with `loader`."""
    _LOADERS[suffix] = loader


@dataclass(frozen=True)
class PolicySpec:
    """A policy's name, taken apart.

    Attributes:
        label: LABEL of `LABEL=...`; "" without one.
        rule: a registered name, or `module:Class`, or what is neither; "" if the name is that of a file.
        knobs: `knob=value,knob=value` of a registered name.
        path: the file of a trained policy; None for rules.
    """

    label: str
    rule: str
    knobs: str
    path: Path | None

    @classmethod
    def parse(cls, name: str) -> "PolicySpec":
        """Take a name apart; `make` says what is wrong with one that means nothing.

        A label is what stands before the first "=", if it has no "/" and no ":" and a registered name or a trained
        policy's file follows. A file in a folder such as `seed=1` is therefore told from `seed=FILE` by another folder
        in front of it: `./seed=1/policy.npz`.
        """
        given, _, rest = name.partition("=")
        if given and "/" not in given and ":" not in given:
            spec = cls._unlabelled(given, rest)
            if spec.path or spec.rule in _RULES:
                return spec
        return cls._unlabelled("", name)

    @classmethod
    def _unlabelled(cls, label: str, name: str) -> "PolicySpec":
        rule, _, rest = name.partition(":")
        if rule in _RULES:
            return cls(label, rule, rest, None)
        path = Path(name)
        return cls(label, "", "", path) if path.suffix in _LOADERS else cls(label, name, "", None)

    def rule_class(self) -> type:
        """The class of a rule.

        Raises:
            InputError: there is none.
        """
        if self.rule in _RULES:
            return _RULES[self.rule]
        module, _, attribute = self.rule.partition(":")
        if attribute and "=" not in attribute:
            return _import(module, attribute)
        known = ", ".join([*names(), *bounds()])
        raise InputError(
            f"no policy {self.rule!r}; registered are {known}; or give module:Class, or a trained policy's file"
        )


def trained_path(name: str) -> Path | None:
    """The file that a name stands for: `path` or `LABEL=path`, where the path's suffix has a loader; else None."""
    return PolicySpec.parse(name).path


def label(name: str) -> str:
    """A policy's name in tables and figures: LABEL of `LABEL=...`, the file's name of a path, else the name itself.

    That of a clairvoyant one says so.
    """
    spec = PolicySpec.parse(name)
    if spec.path is not None:
        return spec.label or spec.path.name
    return (spec.label or name) + (" (clairvoyant)" if clairvoyant(name) else "")


def clairvoyant(name: str) -> bool:
    """Whether a policy knows what no router can, such as output lengths: its class says `clairvoyant = True`."""
    spec = PolicySpec.parse(name)
    if spec.path is not None:
        return False
    try:
        return bool(getattr(spec.rule_class(), "clairvoyant", False))
    except InputError:  # `make` says what is wrong with it
        return False


def make(name: str, seed: int = 0) -> Policy:
    """Make a policy.

    Args:
        name: a registered name, with knobs as `name:knob=value,knob=value`; or `module:Class`; or the path of a trained
            policy. `LABEL=path` and `LABEL=name:knob=value` say what tables call it.
        seed: for rules that draw random numbers.

    Raises:
        InputError: no such policy, knob or value.
    """
    spec = PolicySpec.parse(name)
    if spec.path is not None:
        return _LOADERS[spec.path.suffix](spec.path)
    return _construct(spec.rule, spec.rule_class(), spec.knobs, seed)


def _import(module: str, attribute: str) -> type:
    if not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"policy {module}:{attribute}: {module!r} is not the name of a module")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"policy {module}:{attribute}: {error}") from error
    if not (inspect.isclass(found) and callable(getattr(found, "place", None))):
        raise InputError(f"policy {module}:{attribute} is not a class with a method place(request, view)")
    return found


def _construct(name: str, rule: type, knobs: str, seed: int) -> Policy:
    parameters = inspect.signature(rule).parameters
    arguments: dict[str, Any] = {"seed": seed} if "seed" in parameters else {}
    for item in _items(knobs):
        knob, equals, text = item.partition("=")
        if knob not in parameters or knob == "seed":
            has = ", ".join(k for k in parameters if k != "seed") or "none"
            raise InputError(f"policy {name} has no knob {knob!r}; its knobs: {has}")
        if not equals:
            raise InputError(f"policy {name}: give knob {knob} a value, as {knob}=VALUE")
        arguments[knob] = _convert(name, knob, text, type(parameters[knob].default))
    for knob, parameter in parameters.items():
        if knob not in arguments and parameter.default is parameter.empty and parameter.kind not in _CATCH_ALL:
            raise InputError(f"policy {name}: its class needs a value for {knob}; only defaults can be made by name")
    policy: Policy = rule(**arguments)
    return policy


def _items(knobs: str) -> list[str]:
    """The parts of `knob=value,knob=value`; a knob `base` names policies with knobs of their own and takes the rest."""
    before, base, rest = f",{knobs}".partition(",base=")
    return [*filter(None, before.split(",")), *([f"base={rest}"] if base else [])]


def _convert(name: str, knob: str, text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"policy {name}: knob {knob} must be true or false, not {text!r}")
    try:
        value: object = kind(text)
    except ValueError as error:
        raise InputError(f"policy {name}: knob {knob} must be a {kind.__name__}, not {text!r}") from error
    return value
