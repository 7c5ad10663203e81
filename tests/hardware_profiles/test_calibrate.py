"""`python -m hardware_profiles.calibrate`: mistakes in one line, and what it makes held against the estimator."""

import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hardware_profiles import load_profile
from hardware_profiles.calibrate import main
from hardware_profiles.cli import run_main
from hardware_profiles.estimator import Estimator
from hardware_profiles.steps import KINDS, Kind, Step, draw, estimated_s, grid

HAS_LIBRARY = importlib.util.find_spec("aiconfigurator_core") is not None
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason="needs the extra `calibrate` (aiconfigurator-core)")

GOOD = ["--system", "a100_sxm", "--model", "Qwen/Qwen3-8B", "--backend", "vllm", "--name", "mine"]


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
    with pytest.raises(SystemExit) as left:
        run_main(main)
    assert isinstance(left.value.code, int)
    return left.value.code


def replaced(option: str, value: str) -> list[str]:
    place = GOOD.index(option) + 1
    return [*GOOD[:place], value, *GOOD[place + 1 :]]


BAD_ARGUMENTS = [
    ([], "--system"),
    ([*GOOD, "--tp", "0"], "--tp"),
    ([*GOOD, "--tp", "two"], "--tp"),
    ([*GOOD, "--decode-overhead-ms", "-1", "--decode-overhead-source", "me"], "--decode-overhead-ms"),
    ([*GOOD, "--decode-overhead-ms", "nan", "--decode-overhead-source", "me"], "--decode-overhead-ms"),
    ([*GOOD, "--decode-overhead-ms", "1"], "--decode-overhead-source"),
    (replaced("--name", "../mine"), "--name"),
    ([*GOOD, "--out", "/no/such/folder"], "/no/such/folder"),
]
UNSERVED = [
    (replaced("--model", "Qwen/Qwen3-9B"), "'Qwen/Qwen3-8B'"),
    (replaced("--model", "meta-llama/Llama-3.1-8B"), "'meta-llama/Meta-Llama-3.1-8B'"),
    (replaced("--system", "a100"), "'a100'"),
    (replaced("--backend", "mlx"), "'mlx'"),
    ([*GOOD, "--tp", "3"], "tp 3"),
    (replaced("--model", "meta-llama/Meta-Llama-3.1-70B"), "KV"),
]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [*BAD_ARGUMENTS, *(pytest.param(*case, marks=needs_library) for case in UNSERVED)],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    named: str,
) -> None:
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path)]
    assert run(monkeypatch, arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert named in line
    assert not list(tmp_path.iterdir())


def test_without_the_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # None in sys.modules makes an import fail even where the library is installed.
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    monkeypatch.setitem(sys.modules, "aiconfigurator_core.sdk", None)
    assert run(monkeypatch, [*GOOD, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: aiconfigurator-core is not installed: pip install -e .[calibrate]\n"


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hardware_profiles.calibrate", "--name", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("kind", KINDS)
def test_steps_drawn_and_on_the_grid_keep_their_ranges(kind: Kind) -> None:
    capacity = 100_000
    for step in [*draw(kind, 300, capacity, np.random.default_rng(0)), *grid(capacity, [1, 2, 8704])[kind]]:
        assert (step.prompts > 0) == (kind != "decode")
        assert (step.batch > 0) == (kind != "prefill")
        assert step.kv_tokens <= capacity
        assert 0 < step.prompts * step.new_tokens + step.batch <= 8192 + 512
        assert all(count >= 0 for count in step)


@needs_library
@pytest.mark.parametrize("name", ["a100-qwen3-8b", "a100-llama31-8b"])
def test_the_law_holds_on_steps_the_calibration_never_saw(name: str) -> None:
    profile = load_profile(name)
    provenance = profile.provenance
    estimator = Estimator(profile.model, provenance["system"], provenance["backend"], provenance["tp"])
    bars: dict[Kind, float] = {"prefill": 0.01, "decode": 0.015, "mixed": 0.025, "averaged": 0.03}
    rng = np.random.default_rng(7)
    for kind, bar in bars.items():
        steps = draw(kind, 1000, profile.kv_capacity_tokens, rng)
        law_s = np.array([profile.step_time_s(step.chunks, step.batch, step.kv_tokens) for step in steps])
        assert np.mean(np.abs(law_s / estimated_s(estimator, kind, steps) - 1.0)) <= bar, kind


@needs_library
def test_a_mixed_step_put_together_from_passes_is_the_librarys_where_both_say_the_same() -> None:
    estimator = Estimator("Qwen/Qwen3-8B", "a100_sxm", "vllm", 1)
    for tokens, batch in ((64, 1), (512, 32), (2048, 128)):
        whole_prompt = Step(1, tokens, 0, batch, tokens)
        ours = estimated_s(estimator, "mixed", [whole_prompt])
        assert ours == pytest.approx(estimated_s(estimator, "averaged", [whole_prompt]), rel=1e-9)


@needs_library
@pytest.mark.slow
def test_the_shipped_profile_is_what_its_command_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = "a100-qwen3-8b"
    shipped = load_profile(name)
    arguments = shlex.split(shipped.provenance["command"])[3:]
    assert run(monkeypatch, [*arguments, "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]
    made = load_profile(tmp_path / f"{name}.json")
    assert made.law.token_time_s == pytest.approx(shipped.law.token_time_s, rel=1e-3)
    assert (made.kv_bytes_per_token, made.kv_capacity_tokens) == (
        shipped.kv_bytes_per_token,
        shipped.kv_capacity_tokens,
    )
    assert (made.inter_node, made.intra_node) == (shipped.inter_node, shipped.intra_node)
    assert "held out, decode" in capsys.readouterr().out
    # Written for people too: short enough to read, one table a line.
    assert len((tmp_path / f"{name}.json").read_text(encoding="utf-8").splitlines()) < 100
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["name"] == name
