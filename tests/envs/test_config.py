"""Errors of a cluster's configuration about the step budget: one line that names the field."""

from math import inf, nan

import pytest

from envs.cluster import ClusterConfig
from hardware_profiles import InputError
from tests.toy import toy_profile

BAD: dict[str, tuple[object, ...]] = {
    "step_budget": ("loose", "", "SLO", None),
    "slo_share": (0.0, -0.5, 1.01, inf, nan),
    "kv_hold_s": (0.0, -1.0, -inf, nan),
    "chunk_grain_tokens": (0, -32),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_the_error_for_a_bad_value_is_one_line_that_names_it(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name) as caught:
        ClusterConfig(toy_profile(), **{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step_budget", "fixed"), ("slo_share", 1.0), ("slo_share", 1e-3), ("kv_hold_s", inf), ("chunk_grain_tokens", 1)],
)
def test_values_up_to_the_bounds_are_valid(name: str, value: object) -> None:
    assert getattr(ClusterConfig(toy_profile(), **{name: value}), name) == value  # type: ignore[arg-type]


def test_engines_limit_steps_by_the_slo_by_default() -> None:
    config = ClusterConfig(toy_profile())
    assert (config.step_budget, config.slo_share, config.chunk_grain_tokens, config.kv_hold_s) == ("slo", 0.95, 32, 480)
