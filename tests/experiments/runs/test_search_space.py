"""The settings of a rule that are tried: equal numbers, spread evenly, the default among them."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from experiments.runs.search_space import default, settings, tunable
from policies import PolicySpec
from policies.registry import RULES


@given(rule=st.sampled_from(tunable()), count=st.integers(1, 40))
def test_every_rule_gets_as_many_settings_its_default_among_them(rule: str, count: int) -> None:
    spec = PolicySpec.parse(rule)
    found = settings(spec, count)
    size = prod(len(values) for values in policies.grid(rule).values())
    assert len(set(found)) == len(found) == min(count, size)
    assert default(spec) in found
    assert found == settings(spec, count)
    for setting in found:
        setting.make()


def test_a_sample_of_a_grid_uses_each_value_about_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"alpha": (1.0, 1.3, 2.0), "beta": (0.8, 0.9, 1.0), "cap": (1, 2, 4, 8), "transfer": (True, False)}
    monkeypatch.setattr(RULES["kairos"], "grid", grid)
    found = [setting.params for setting in settings(PolicySpec.parse("kairos"), 25)[1:]]
    for knob, values in grid.items():
        texts = [f"{knob}={str(value).lower() if knob == 'transfer' else value}" for value in values]
        times = [sum(text in params.split(",") for params in found) for text in texts]
        assert sum(times) == 24
        assert max(times) - min(times) <= 4  # 1, except for the few that were drawn twice and drawn again


def test_knobs_that_are_named_stay_as_they_are() -> None:
    found = settings(PolicySpec.parse("shortest-ttft:choices=pairs"), 18)
    assert len(found) == len(policies.grid("shortest-ttft")["alpha"])
    assert all(setting.params.endswith(",choices=pairs") for setting in found)
    assert PolicySpec.parse("shortest-ttft:alpha=1.0,choices=pairs") in found
