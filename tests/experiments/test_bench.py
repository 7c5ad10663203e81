"""The bench command, its baseline, and its measurements."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig
from experiments.bench import BenchOptions
from experiments.options.parser import parse
from experiments.speed import baseline
from experiments.speed.measurements import conversation, copy_s
from hardware_profiles import InputError
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]
EMPTY = f"# Speed\n\n{baseline.BEGIN}\n{baseline.END}\n\nMore.\n"


@pytest.mark.slow
def test_bench_prints_every_figure_of_the_contract(tmp_path: Path) -> None:
    stored = tmp_path / "bench.md"
    stored.write_text(EMPTY)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.bench",
            "--json",
            "--quick",
            "--seconds",
            "10",
            "--baseline",
            stored,
            "--update",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    modes = {"compiled": found, "plain": found["plain"]} if found["compiled"] else {"plain": found}
    for mode in modes.values():
        for figure in baseline.FIGURES:
            assert mode[figure.name] > 0
            assert mode["ratios"][figure.name] == figure.ratio(mode)
        assert set(mode["decision_us"]) == set(policies.names())
        # Tenths of the bars: one run on a busy machine only shows that nothing is wrong by an order of magnitude. Each
        # figure is the best of several short measurements, so that a stall does not decide.
        assert mode["ratios"]["simulated_requests_per_s"] > 0.0015
        assert mode["ratios"]["vector_env_steps_per_s"] > 0.0003
    assert baseline.read(stored) == {
        mode: pytest.approx(found["ratios"], rel=0.05, abs=5e-5) for mode, found in modes.items()
    }


def some_ratios(scale: float = 1.0) -> baseline.Ratios:
    return {figure.name: (0.01 if figure.per_event else 700.0) * scale for figure in baseline.FIGURES}


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.md"
    path.write_text(EMPTY)
    modes = {"compiled": some_ratios(2.0), "plain": some_ratios()}
    baseline.write(path, modes)
    assert baseline.read(path) == modes
    assert path.read_text().startswith("# Speed\n")
    assert path.read_text().endswith("\n\nMore.\n")
    baseline.write(path, {"plain": some_ratios(3.0)})
    assert baseline.read(path) == {"plain": some_ratios(3.0)}


@given(factor=st.floats(0.3, 3.0))
def test_a_figure_falls_if_it_is_a_fifth_worse_in_its_own_direction(factor: float) -> None:
    for figure in baseline.FIGURES:
        now = some_ratios()
        now[figure.name] *= factor if figure.per_event else 1.0 / factor
        _, fallen = baseline.compare({"plain": now}, {"plain": some_ratios()})
        worse = 1.0 - factor if figure.per_event else 1.0 / factor - 1.0
        assert fallen == ([f"{figure.meaning} (plain)"] if worse > baseline.TOLERANCE else [])


def test_a_mode_without_a_baseline_is_not_compared() -> None:
    assert baseline.compare({"compiled": some_ratios(0.1)}, {"plain": some_ratios()})[1] == []


OTHER_TABLE = f"{baseline.BEGIN}\n| figure | x |\n|---|---|\n| speed | fast |\n{baseline.END}"


@pytest.mark.parametrize(
    ("text", "named"),
    [("no table", "are missing"), (EMPTY, "cannot be read"), (OTHER_TABLE, "cannot be read")],
)
def test_a_file_without_a_baseline_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.md"
    path.write_text(text)
    with pytest.raises(InputError, match=named) as caught:
        parse(BenchOptions, "bench", "", ["--baseline", str(path)])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seconds", "-1"], "--seconds"),
        (["--update"], "--update goes with --baseline"),
        (["--baseline", "nowhere.md"], "nowhere.md"),
    ],
)
def test_invalid_options_are_named(arguments: list[str], named: str) -> None:
    with pytest.raises((InputError, FileNotFoundError), match=named):
        parse(BenchOptions, "bench", "", arguments)


def test_the_workload_is_like_azure_conversation_at_triple_rate() -> None:
    workload = conversation(40_000)
    assert workload.rate_rps == pytest.approx(3 * 5.53, rel=0.1)
    assert np.median(workload.prompt_tokens) == pytest.approx(1020, rel=0.05)
    assert np.percentile(workload.output_tokens, 95) == pytest.approx(451, rel=0.05)


def test_copying_a_cluster_with_requests_in_flight_takes_time() -> None:
    assert copy_s(ClusterConfig(toy_profile()), in_flight=50) > 0
