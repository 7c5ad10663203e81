from pathlib import Path

import pytest

from envs.workload import Workload
from experiments import knee
from experiments.knee import TARGET, attainment, knee_rps, knees
from hardware_profiles import InputError
from tests.experiments.made_up import CONFIG


def even(*, rate_rps: float, seed: int, prompt_tokens: int = 2000, ttft_slo_s: float = 2.0) -> Workload:
    """Requests at even distances, all alike: saturation has a closed form."""
    requests = 600
    return Workload.of(
        [(i + seed % 2 / 2) / rate_rps for i in range(requests)],
        [prompt_tokens] * requests,
        [2] * requests,
        label="even",
        ttft_slo_s=ttft_slo_s,
    )


def test_the_knee_is_where_static_stops_meeting_the_target() -> None:
    found = knee_rps(even, CONFIG)
    assert attainment(even(rate_rps=found, seed=0), "static", CONFIG) >= TARGET
    assert attainment(even(rate_rps=found * 1.05, seed=0), "static", CONFIG) < TARGET


def test_the_knee_lies_above_where_two_prefill_nodes_saturate() -> None:
    # A queue must first grow to two seconds, so a run of so many requests bears a little more than capacity.
    capacity_rps = 2 / CONFIG.profile.law.time_s([(2000, 0)], 0, 0)
    assert capacity_rps < knee_rps(even, CONFIG) < 1.2 * capacity_rps


def test_an_slo_that_no_rate_meets() -> None:
    with pytest.raises(InputError, match="no knee"):
        knee_rps(lambda *, rate_rps, seed: even(rate_rps=rate_rps, seed=seed, ttft_slo_s=0.001), CONFIG)


def test_a_knee_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = knees({"even": even}, CONFIG, tmp_path)
    monkeypatch.setattr(knee, "knee_rps", None)
    assert knees({"even": even}, CONFIG, tmp_path) == first
