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

_RULES: dict[str, type] = {rule.name: rule for rule in (Random, RoundRobin, Static, AlwaysLocal, Kairos)}
_LOADERS: dict[str, Callable[[Path], Policy]] = {}


def names() -> list[str]:
    """Names of the registered rules."""
    return list(_RULES)


def register_loader(suffix: str, loader: Callable[[Path], Policy]) -> None:
    """Let `make` load policy files that end in `suffix` (such as ".npz") with `loader`."""
    _LOADERS[suffix] = loader


def make(name: str, seed: int = 0) -> Policy:
    """Make a policy.

    Args:
        name: a registered name, with knobs as `name:knob=value,knob=value`; or `module:Class`; or the path of a trained
            policy. `label=` before any of them names it in tables: `mine=runs/a/policy.npz`.
        seed: for rules that draw random numbers.

    Raises:
        InputError: no such policy, knob or value.
    """
    suffix = Path(name).suffix
    if suffix in _LOADERS:
        return _LOADERS[suffix](Path(name))
    rule, _, rest = name.partition(":")
    if rule in _RULES:
        return _construct(rule, _RULES[rule], rest, seed)
    if rest and "=" not in rest:
        return _construct(name, _import(rule, rest), "", seed)
    known = ", ".join(names())
    raise InputError(f"no policy {name!r}; registered are {known}; or give module:Class, or a trained policy's file")


def _import(module: str, attribute: str) -> type:
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
