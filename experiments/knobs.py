"""Which knobs of a rule are tried: its grid whole where that is small enough, else a spread sample of it."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

import policies
from hardware_profiles import InputError

_STREAM = 20260703


def settings(rule: str, count: int) -> list[str]:
    """Names with knobs of at most `count` different settings of a registered rule; its default is one of them.

    A grid that has no more is tried whole, in order. Of a larger one the settings after the default are drawn so that
    each knob takes each of its values about equally often (a Latin hypercube), from a random stream of the rule's own.

    Raises:
        InputError: the rule has no knobs to tune.
    """
    grid = policies.grid(rule)
    if not grid:
        raise InputError(f"policy {rule} has no knobs to tune")
    if prod(len(values) for values in grid.values()) <= count:
        return [_name(rule, grid, values) for values in product(*grid.values())]
    found = [default(rule)]
    rng = np.random.default_rng(np.random.SeedSequence(_STREAM, spawn_key=tuple(rule.encode())))
    while len(found) < count:
        columns = [_balanced(values, count - 1, rng) for values in grid.values()]
        drawn = [_name(rule, grid, row) for row in zip(*columns, strict=True)]
        found = list(dict.fromkeys([*found, *drawn]))[:count]
    return found


def default(rule: str) -> str:
    """The name of a rule's default setting, the knobs of its grid spelt out."""
    defaults = policies.knobs(rule)
    grid = policies.grid(rule)
    return _name(rule, grid, [defaults[knob] for knob in grid])


def _balanced(values: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    """`count` of `values` in random order, each as often as any other, give or take one."""
    turns = rng.permutation(len(values))[np.arange(count) % len(values)]
    return [values[i] for i in rng.permutation(turns)]


def _name(rule: str, grid: Mapping[str, Sequence[Any]], values: Sequence[Any]) -> str:
    return f"{rule}:" + ",".join(f"{knob}={_text(value)}" for knob, value in zip(grid, values, strict=True))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
