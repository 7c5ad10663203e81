"""Grids of knobs, from which `experiments.tune` draws settings."""

from itertools import product
from math import prod

import pytest

import policies
from policies.kairos import Kairos

TUNABLE = [name for name in policies.names() if policies.grid(name)]
BUDGET = 18  # default number of settings of experiments.tune


@pytest.mark.parametrize("rule", TUNABLE)
def test_a_grid_has_knobs_of_the_policy_and_their_defaults(rule: str) -> None:
    knobs = policies.knobs(rule)
    for knob, values in policies.grid(rule).items():
        assert knobs[knob] in values
        assert len(set(values)) == len(values) > 1


@pytest.mark.parametrize("rule", TUNABLE)
def test_a_grid_has_enough_settings_for_an_equal_budget(rule: str) -> None:
    assert prod(len(values) for values in policies.grid(rule).values()) >= BUDGET


@pytest.mark.parametrize("rule", TUNABLE)
def test_every_setting_of_a_grid_can_be_created_by_name(rule: str) -> None:
    grid = policies.grid(rule)
    for values in product(*grid.values()):
        name = ",".join(f"{knob}={str(value).lower()}" for knob, value in zip(grid, values, strict=True))
        assert policies.make(f"{rule}:{name}").name == rule


def test_the_grid_of_kairos_has_the_published_knobs() -> None:
    assert {"alpha", "beta", "cap"} == set(policies.grid("kairos"))
    assert policies.knobs("kairos")["alpha"] == 1.3
    assert policies.grid("static") == {}
    assert policies.knobs("static") == {"prefix": True}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("kairos", "kairos"),
        ("kairos:beta=0.9", "kairos:beta=0.9"),
        ("careful=kairos:beta=0.9", "careful"),
        ("kairos=kairos:alpha=1.0,beta=0.9", "kairos"),
        ("twice=kairos:queue_chunk=prompt,beta=0.9", "twice"),
        ("other=static", "other"),
    ],
)
def test_a_setting_may_have_a_label_for_tables(name: str, label: str) -> None:
    assert policies.PolicySpec.parse(name).label == label
    made = policies.make(name)
    assert made.name == ("static" if name == "other=static" else "kairos")
    if isinstance(made, Kairos):
        assert made._beta == (0.9 if "beta" in name else 1.0)
