"""A policy's name, parsed once: `static`, `careful=kairos:beta=0.9,cap=2`, `mine=module:Class`, or a trained file."""

import importlib
import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.cluster import Policy
from hardware_profiles import InputError
from hardware_profiles.errors import unknown_name
from policies.registry import CATCH_ALL, LOADERS, RULES, TRAINED, bounds, names

_CLASS = re.compile(r"([^:=/]*:[^:=/]+)(?::(.*))?", re.DOTALL)


@dataclass(frozen=True)
class PolicySpec:
    """A policy's name, taken apart.

    Attributes:
        alias: LABEL of `LABEL=...`; "" without one.
        rule: a registered name, or `module:Class`, or a name that means nothing; "" if the name is that of a file.
        params: `knob=value,knob=value` of a rule, or of a trained policy.
        path: the file of a trained policy; None for rules.
    """

    alias: str
    rule: str
    params: str
    path: Path | None

    @classmethod
    def parse(cls, name: str) -> "PolicySpec":
        """Take a name apart; `make` says what is wrong with one that means nothing.

        A label is the text before the first "=", if it has no "/" and no ":" and a registered name, a `module:Class` or
        a trained policy's file follows. To name a file in a folder such as `seed=1`, put another folder in front:
        `./seed=1/policy.npz`.
        """
        given, _, rest = name.partition("=")
        if given and "/" not in given and ":" not in given:
            spec = cls._without_alias(given, rest)
            if spec.path or spec.rule in RULES or _CLASS.fullmatch(spec.rule):
                return spec
        return cls._without_alias("", name)

    @classmethod
    def _without_alias(cls, alias: str, name: str) -> "PolicySpec":
        rule, _, params = name.partition(":")
        if rule in RULES:
            return cls(alias, rule, params, None)
        if rule in TRAINED:
            return cls(alias or name, "", params, TRAINED[rule])
        if Path(name).suffix in LOADERS:
            return cls(alias, "", "", Path(name))
        if Path(rule).suffix in LOADERS:
            return cls(alias, "", params, Path(rule))
        own = _CLASS.fullmatch(name)
        return cls(alias, own[1], own[2] or "", None) if own else cls(alias, name, "", None)

    def __str__(self) -> str:
        """The name that `parse` takes apart into this."""
        return f"{self.alias}={self.text}" if self.alias else self.text

    @property
    def text(self) -> str:
        """The name without its label: what the policy is."""
        if self.path is not None:
            shipped = [name for name, path in TRAINED.items() if path == self.path]
            return ":".join([*(shipped or [str(self.path)]), *filter(None, [self.params])])
        return f"{self.rule}:{self.params}" if self.params else self.rule

    @property
    def label(self) -> str:
        """The policy's name in tables and figures; that of a clairvoyant policy says so."""
        if self.path is not None:
            return self.alias or ":".join(filter(None, [self.path.name, self.params]))
        return (self.alias or self.text) + (" (clairvoyant)" if self.clairvoyant else "")

    @property
    def learned(self) -> bool:
        """Whether the policy is read from a file."""
        return self.path is not None

    @property
    def clairvoyant(self) -> bool:
        """Whether the policy knows what no router can, such as output lengths: its class says `clairvoyant = True`."""
        try:
            return self.path is None and bool(getattr(self.rule_class(), "clairvoyant", False))
        except InputError:  # `make` says what is wrong with it
            return False

    @property
    def source(self) -> Path | None:
        """The file from outside the project that the policy is made of; None for a registered rule."""
        if self.path is not None:
            return self.path
        if self.rule in RULES:
            return None
        found = importlib.util.find_spec(self.rule.partition(":")[0])
        return Path(found.origin) if found is not None and found.origin is not None else None

    def rule_class(self) -> type:
        """The class of a rule.

        Raises:
            InputError: there is none.
        """
        if self.rule in RULES:
            return RULES[self.rule]
        if _CLASS.fullmatch(self.rule):
            return _import(*self.rule.split(":"))
        rule = self.rule.partition(":")[0].rpartition("=")[2]  # neither label nor knobs, or no known name is close
        error = unknown_name("policy", rule if rule not in RULES else self.text, [*names(), *bounds(), *TRAINED])
        raise InputError(f"{error}; or give module:Class, or a trained policy's file ({', '.join(LOADERS)})")

    def make(self, seed: int = 0) -> Policy:
        """Make the policy.

        Args:
            seed: for rules that draw random numbers.

        Raises:
            InputError: no such policy, knob, value or file.
        """
        if self.path is not None:
            module, _, attribute = LOADERS[self.path.suffix].partition(":")
            return _construct(self.label, _import(module, attribute), self.params, seed, self.path)
        return _construct(self.rule, self.rule_class(), self.params, seed)


def make(name: str, seed: int = 0) -> Policy:
    """Make a policy from its name; see `PolicySpec`.

    Args:
        name: a registered name, `module:Class` or the path of a trained policy, with knobs as
            `name:knob=value,knob=value`. `LABEL=` in front says what tables call it.
        seed: for rules that draw random numbers.

    Raises:
        InputError: no such policy, knob, value or file.
    """
    return PolicySpec.parse(name).make(seed)


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


def _construct(name: str, rule: type, params: str, seed: int, *given: Path) -> Policy:
    parameters = dict(list(inspect.signature(rule).parameters.items())[len(given) :])
    arguments: dict[str, Any] = {"seed": seed} if "seed" in parameters else {}
    for item in _items(params):
        knob, equals, text = item.partition("=")
        if knob not in parameters or knob == "seed":
            has = ", ".join(k for k in parameters if k != "seed") or "none"
            raise InputError(f"policy {name} has no knob {knob!r}; its knobs: {has}")
        if not equals:
            raise InputError(f"policy {name}: give knob {knob} a value, as {knob}=VALUE")
        arguments[knob] = _convert(name, knob, text, _kind(parameters[knob]))
    for knob, parameter in parameters.items():
        if knob not in arguments and parameter.default is parameter.empty and parameter.kind not in CATCH_ALL:
            raise InputError(f"policy {name}: its class needs a value for {knob}, as {name}:{knob}=VALUE")
    policy: Policy = rule(*given, **arguments)
    return policy


def _items(params: str) -> list[str]:
    """The parts of `knob=value,knob=value`; a knob `base` names policies that have knobs, and takes the rest."""
    before, base, rest = f",{params}".partition(",base=")
    return [*filter(None, before.split(",")), *([f"base={rest}"] if base else [])]


def _kind(parameter: inspect.Parameter) -> type:
    """The type of a knob: that of its default, else of its annotation if that is a plain type, else str."""
    if parameter.default is not parameter.empty:
        return type(parameter.default)
    kinds: tuple[type, ...] = (bool, int, float)
    return next((kind for kind in kinds if parameter.annotation is kind), str)


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
