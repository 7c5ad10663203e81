"""The bench command, and that its figures are of what they say."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policies
from envs.cluster import ClusterConfig
from experiments.bench.measures import conversation, copy_s
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_bench_prints_every_figure_of_the_contract() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench", "--json", "--seconds", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in (
        "simpy_events_per_s",
        "simulated_requests_per_s",
        "simulated_requests_per_s_kairos",
        "env_steps_per_s",
        "ppo_steps_per_s",
        "ppo_ceiling_steps_per_s",
        "copy_s",
    ):
        assert found[name] > 0
    assert set(found["decision_us"]) == set(policies.names())
    # A tenth of the bar of 0.015: one run on a busy machine only shows that nothing is wrong by an order of magnitude.
    assert found["simulated_requests_per_s"] > 0.0015 * found["simpy_events_per_s"]


def test_the_workload_is_like_azure_conversation_at_three_times_its_rate() -> None:
    workload = conversation(40_000)
    assert workload.rate_rps == pytest.approx(3 * 5.53, rel=0.1)
    assert np.median(workload.prompt_tokens) == pytest.approx(1020, rel=0.05)
    assert np.percentile(workload.output_tokens, 95) == pytest.approx(451, rel=0.05)


def test_copying_copies_what_is_in_flight() -> None:
    assert copy_s(ClusterConfig(toy_profile()), in_flight=50) > 0
