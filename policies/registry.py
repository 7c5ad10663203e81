"""Policies by name: `static`, `kairos:alpha=1.5,cap=2`, `module:Class`, or the file of a trained one."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs.cluster import Policy
from hardware_profiles import InputError
from policies.always_local import AlwaysLocal
from policies.fixed import Random, RoundRobin, Static
from policies.kairos import Kairos
from policies.shortest_ttft import ShortestTTFT

_RULES: dict[str, type] = {rule.name: rule for rule in (Random, RoundRobin, Static, AlwaysLocal, ShortestTTFT, Kairos)}
_CATCH_ALL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_LOADERS: dict[str, Callable[[Path], Policy]] = {}


def names() -> list[str]:
    """Names of the registered rules."""
    return list(_RULES)


def register_loader(suffix: str, loader: Callable[[Path], Policy]) -> None:
    """Let `make` load policy files that end in `suffix` (such as ".npz") with `loader`."""
    _LOADERS[suffix] = loader


def trained_path(name: str) -> Path | None:
    """The file that a name stands for: `path` or `LABEL=path`, where the path's suffix has a loader; else None."""
    path = Path(name.rpartition("=")[2])
    return path if path.suffix in _LOADERS else None


def label(name: str) -> str:
    """A policy's name in tables and figures: LABEL of `LABEL=path`, the file's name of a path, else the name itself."""
    path = trained_path(name)
    if path is None:
        return name
    given, equals, _ = name.rpartition("=")
    return given if equals else path.name


def make(name: str, seed: int = 0) -> Policy:
    """Make a policy.

    Args:
        name: a registered name, with knobs as `name:knob=value,knob=value`; or `module:Class`; or the path of a trained
            policy, which `LABEL=path` names in tables.
        seed: for rules that draw random numbers.

    Raises:
        InputError: no such policy, knob or value.
    """
    path = trained_path(name)
    if path is not None:
        return _LOADERS[path.suffix](path)
    rule, _, rest = name.partition(":")
    if rule in _RULES:
        return _construct(rule, _RULES[rule], rest, seed)
    if rest and "=" not in rest:
        return _construct(name, _import(rule, rest), "", seed)
    known = ", ".join(names())
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
    for item in filter(None, knobs.split(",")):
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
