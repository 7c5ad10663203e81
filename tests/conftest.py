"""How hypothesis chooses its examples, and what has to be done once before the first test."""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

# No test depends on the speed of the machine: there is no deadline, and slow drawing of examples is no failure.
_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}

settings.register_profile("ci", derandomize=True, database=None, **_ANY_SPEED)
settings.register_profile("explore", max_examples=300, **_ANY_SPEED)


def pytest_configure(config: pytest.Config) -> None:
    profile = os.environ.get("HYPOTHESIS_PROFILE", "ci")
    settings.load_profile(profile)
    if profile == "ci":
        # Hypothesis also tries constants of the modules that are loaded, and which are depends on the tests before.
        pytest.MonkeyPatch().setattr(providers, "_get_local_constants", Constants)
    if not hasattr(config, "workerinput"):
        # The first import on a machine writes a cache of fonts. If that takes more than 5 s, matplotlib says so on
        # stderr, where tests of commands expect one line.
        import matplotlib.font_manager  # noqa: F401
