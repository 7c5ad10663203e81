"""Which knobs of a rule are tried: its grid whole where that is small enough, else a spread sample of it."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

import policies
from hardware_profiles import InputError

_STREAM = 20260703


def settings(policy: str, count: int) -> list[str]:
    """Names with knobs of at most `count` different settings of a registered rule; its default is one of them.

    A grid that has no more is tried whole, in order. Of a larger one the settings after the default are drawn so that
    each knob takes each of its values about equally often (a Latin hypercube), from a separate random stream per
    policy.

    Args:
        policy: a rule, or `rule:knob=value,...`, whose knobs stay as given; the others are tuned.
        count: settings at most.

    Raises:
        InputError: there are no knobs to tune.
    """
    rule, fixed, grid = _open_knobs(policy)
    if prod(len(values) for values in grid.values()) <= count:
        return [_name(rule, fixed, grid, values) for values in product(*grid.values())]
    found = [default(policy)]
    rng = np.random.default_rng(np.random.SeedSequence(_STREAM, spawn_key=tuple(policy.encode())))
    while len(found) < count:
        columns = [_balanced(values, count - 1, rng) for values in grid.values()]
        drawn = [_name(rule, fixed, grid, row) for row in zip(*columns, strict=True)]
        found = list(dict.fromkeys([*found, *drawn]))[:count]
    return found


def default(policy: str) -> str:
    """The name of a policy's default setting, the knobs of its grid spelt out."""
    rule, fixed, grid = _open_knobs(policy)
    defaults = policies.knobs(rule)
    return _name(rule, fixed, grid, [defaults[knob] for knob in grid])


def _open_knobs(policy: str) -> tuple[str, list[str], Mapping[str, Sequence[Any]]]:
    """A policy's rule, the knobs that it fixes, and the grid of the others."""
    rule, _, knobs = policy.partition(":")
    fixed = [item for item in knobs.split(",") if item]
    grid = policies.grid(rule) if rule in policies.names() else {}
    grid = {knob: values for knob, values in grid.items() if knob not in [item.partition("=")[0] for item in fixed]}
    if not grid:
        raise InputError(f"policy {policy} has no knobs to tune")
    policies.make(policy)  # says what is wrong with a knob that is fixed
    return rule, fixed, grid


def _balanced(values: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    """`count` of `values` in random order, each as often as any other, give or take one."""
    turns = rng.permutation(len(values))[np.arange(count) % len(values)]
    return [values[i] for i in rng.permutation(turns)]


def _name(rule: str, fixed: Sequence[str], grid: Mapping[str, Sequence[Any]], values: Sequence[Any]) -> str:
    items = [f"{knob}={_text(value)}" for knob, value in zip(grid, values, strict=True)]
    return f"{rule}:{','.join([*items, *fixed])}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
