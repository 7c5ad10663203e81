"""Policies by name: `static`, `kairos:alpha=1.5,cap=2`, `module:Class`, or the file of a trained one.

A rule that has knobs may say in `grid`, a mapping of knob to values, which are worth trying; `experiments.tune` does.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
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
from policies.lookahead import Lookahead
from policies.mooncake import Mooncake
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
        Splitwise,
        DynamoLegacy,
        DynamoISL,
        DynamoLoad,
        DynamoISLOrLoad,
        LlmD,
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


def trained_path(name: str) -> Path | None:
    """The file that a name stands for: `path` or `LABEL=path`, where the path's suffix has a loader; else None."""
    given, _, last = name.rpartition("=")
    rule, colon, _ = given.partition(":")
    path = Path(last)
    return path if path.suffix in _LOADERS and not (colon and rule in _RULES) else None


def label(name: str) -> str:
    """A policy's name in tables and figures: LABEL of `LABEL=...`, the file's name of a path, else the name itself.

    That of a clairvoyant one says so.
    """
    path = trained_path(name)
    if path is None:
        return (_labelled(name)[0] or name) + (" (clairvoyant)" if clairvoyant(name) else "")
    given, equals, _ = name.rpartition("=")
    return given if equals else path.name


def clairvoyant(name: str) -> bool:
    """Whether a policy knows what no router can, such as output lengths: its class says `clairvoyant = True`."""
    if trained_path(name) is not None:
        return False
    rule, _, rest = _labelled(name)[1].partition(":")
    try:
        found = _RULES.get(rule) or (_import(rule, rest) if rest and "=" not in rest else None)
    except InputError:  # `make` says what is wrong with it
        return False
    return bool(getattr(found, "clairvoyant", False))


def _labelled(name: str) -> tuple[str, str]:
    """LABEL and the rest of `LABEL=rule:knob=value`; without a label "" and the whole."""
    given, equals, rest = name.partition("=")
    is_label = equals and ":" not in given and rest.partition(":")[0] in _RULES
    return (given, rest) if is_label else ("", name)


def make(name: str, seed: int = 0) -> Policy:
    """Make a policy.

    Args:
        name: a registered name, with knobs as `name:knob=value,knob=value`; or `module:Class`; or the path of a trained
            policy. `LABEL=path` and `LABEL=name:knob=value` say what tables call it.
        seed: for rules that draw random numbers.

    Raises:
        InputError: no such policy, knob or value.
    """
    path = trained_path(name)
    if path is not None:
        return _LOADERS[path.suffix](path)
    rule, _, rest = _labelled(name)[1].partition(":")
    if rule in _RULES:
        return _construct(rule, _RULES[rule], rest, seed)
    if rest and "=" not in rest:
        return _construct(name, _import(rule, rest), "", seed)
    known = ", ".join([*names(), *bounds()])
    raise InputError(f"no policy {name!r}; registered are {known}; or give module:Class, or a trained policy's file")


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
