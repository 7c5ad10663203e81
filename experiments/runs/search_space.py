"""Which settings of a rule are tried: its whole grid if that is small enough, else a spread sample of it."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

import policies
from hardware_profiles import InputError
from hardware_profiles.errors import unknown_name
from policies import PolicySpec

_STREAM = 20260703


def settings(policy: PolicySpec, count: int) -> list[PolicySpec]:
    """At most `count` different settings of a registered rule; its default is one of them.

    A grid that has no more is tried whole, in order. Of a larger one the settings after the default are drawn so that
    each knob takes each of its values about equally often (a Latin hypercube), from a separate random stream per
    policy. Knobs that the policy fixes stay as given. Raises InputError (no such rule, or no knobs to tune).
    """
    fixed, grid = _open_knobs(policy)
    if prod(len(values) for values in grid.values()) <= count:
        return [_setting(policy, fixed, grid, values) for values in product(*grid.values())]
    found = [default(policy)]
    rng = np.random.default_rng(np.random.SeedSequence(_STREAM, spawn_key=tuple(policy.text.encode())))
    while len(found) < count:
        columns = [_balanced(values, count - 1, rng) for values in grid.values()]
        drawn = [_setting(policy, fixed, grid, row) for row in zip(*columns, strict=True)]
        found = list(dict.fromkeys([*found, *drawn]))[:count]
    return found


def default(policy: PolicySpec) -> PolicySpec:
    """A policy's default setting, the knobs of its grid spelt out."""
    fixed, grid = _open_knobs(policy)
    defaults = policies.knobs(policy.rule)
    return _setting(policy, fixed, grid, [defaults[knob] for knob in grid])


def tunable() -> list[str]:
    """Names of the rules that have knobs to tune."""
    return [name for name in policies.names() if policies.grid(name)]


def _open_knobs(policy: PolicySpec) -> tuple[list[str], Mapping[str, Sequence[Any]]]:
    """The knobs that a policy fixes, and the grid of the others."""
    if policy.rule not in policies.names():
        raise unknown_name("policy to tune", str(policy), tunable())
    fixed = [item for item in policy.params.split(",") if item]
    named = [item.partition("=")[0] for item in fixed]
    grid = {knob: values for knob, values in policies.grid(policy.rule).items() if knob not in named}
    if not grid:
        raise InputError(f"policy {policy} has no knobs to tune; those with knobs are {', '.join(tunable())}")
    policy.make()  # says what is wrong with a knob that is fixed
    return fixed, grid


def _balanced(values: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    """`count` of `values` in random order, each as often as any other, give or take one."""
    turns = rng.permutation(len(values))[np.arange(count) % len(values)]
    return [values[i] for i in rng.permutation(turns)]


def _setting(
    policy: PolicySpec, fixed: Sequence[str], grid: Mapping[str, Sequence[Any]], values: Sequence[Any]
) -> PolicySpec:
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    items = [f"{knob}={text}" for knob, text in zip(grid, texts, strict=True)]
    return PolicySpec("", policy.rule, ",".join([*items, *fixed]), None)
