"""Settings of hypothesis, and preparation before the first test."""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

# No test depends on the speed of the machine: there is no deadline, and slow generation of examples is no failure.
_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}

settings.register_profile("ci", derandomize=True, database=None, **_ANY_SPEED)
settings.register_profile("explore", max_examples=300, **_ANY_SPEED)


def pytest_configure(config: pytest.Config) -> None:
    profile = os.environ.get("HYPOTHESIS_PROFILE", "ci")
    settings.load_profile(profile)
    if profile == "ci":
        # Hypothesis also tries constants of loaded modules, which depend on the earlier tests.
        pytest.MonkeyPatch().setattr(providers, "_get_local_constants", Constants)
    if not hasattr(config, "workerinput"):
        # The first import on a machine writes a font cache. If that takes more than 5 s, matplotlib prints a message on
        # stderr, where tests of commands expect one line.
        import matplotlib.font_manager  # noqa: F401
