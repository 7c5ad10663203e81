"""`python -m hardware_profiles.calibrate`: one-line errors, and its profiles against the estimator."""

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
from hardware_profiles.step_sources import Kind, Step, steps_s
from hardware_profiles.steps import KINDS, draw, grid

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


INVALID_ANCHORS = ["512", "512:", "x:30", "0:30", "512:0", "512:nan", "9000:30"]
BAD_ARGUMENTS = [
    ([], "--system"),
    ([*GOOD, "--tp", "0"], "--tp"),
    ([*GOOD, "--tp", "two"], "--tp"),
    ([*GOOD, "--decode-overhead-ms", "-1", "--decode-overhead-source", "me"], "--decode-overhead-ms"),
    ([*GOOD, "--decode-overhead-ms", "nan", "--decode-overhead-source", "me"], "--decode-overhead-ms"),
    ([*GOOD, "--decode-overhead-ms", "1"], "--decode-overhead-source"),
    (replaced("--name", "../mine"), "--name"),
    ([*GOOD[:2], *GOOD[4:]], "--model"),
    ([*GOOD, "--anchor", "512:30", "--anchor-source", "me"], "--readings"),
    ([*GOOD, "--anchor", "512:30"], "--anchor-source"),
    ([*GOOD, "--readings", "/no/such/file", "--kv-capacity-tokens", "9"], "--kv-capacity-source"),
    ([*GOOD, "--readings", "/no/such/file", "--kv-capacity-tokens", "-9", "--kv-capacity-source", "me"], "-9"),
    ([*GOOD, "--readings", "/no/such/file", "--anchor-batch", "0"], "--anchor-batch"),
    *(([*GOOD, "--readings", "/x", "--anchor", bad, "--anchor-source", "me"], bad) for bad in INVALID_ANCHORS),
    ([*GOOD, "--readings", "/no/such/file"], "/no/such/file"),
    ([*GOOD, "--max-context-tokens", "0"], "--max-context-tokens"),
    ([*GOOD, "--out", __file__], __file__),
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
def test_invalid_input_prints_one_line_and_writes_nothing(
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


def test_without_the_library_the_error_says_what_to_install(
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
def test_drawn_and_grid_steps_stay_within_their_ranges(kind: Kind) -> None:
    capacity = 100_000
    for step in [*draw(kind, 300, capacity, np.random.default_rng(0)), *grid(capacity).get(kind, [])]:
        assert step.kind == kind
        assert (step.prompts > 0) == (kind != "decode")
        assert (step.batch > 0) == (kind != "prefill")
        assert step.kv_tokens <= capacity
        assert 0 < step.prompts * step.new_tokens + step.batch <= 8192 + 512
        assert all(count >= 0 for count in step)


@needs_library
@pytest.mark.parametrize("name", ["a100-qwen3-8b", "a100-llama31-8b"])
def test_the_law_is_accurate_on_steps_outside_the_calibration(name: str) -> None:
    profile = load_profile(name)
    provenance = profile.provenance
    estimator = Estimator(profile.model, provenance["system"], provenance["backend"], provenance["tp"])
    bars: dict[Kind, float] = {"prefill": 0.01, "decode": 0.002, "mixed": 0.015, "averaged": 0.035}
    rng = np.random.default_rng(7)
    for kind, bar in bars.items():
        steps = draw(kind, 1000, profile.kv_capacity_tokens, rng)
        law_s = np.array([profile.step_time_s(step.chunks, step.batch, step.kv_tokens) for step in steps])
        assert np.mean(np.abs(law_s / steps_s(estimator, steps) - 1.0)) <= bar, kind


TRACE_BATCHES = range(8, 65, 4)
TRACE_CONTEXTS = range(300, 3000, 57)  # the estimator jitters with a period of 10 tokens


@needs_library
@pytest.mark.parametrize("name", ["a100-qwen3-8b", "a100-llama31-8b"])
def test_decode_steps_at_contexts_of_traces_match_the_estimator(name: str) -> None:
    profile = load_profile(name)
    estimator = Estimator(profile.model, "a100_sxm", "vllm", 1)
    # The middle of the totals whose mean context is rounded down to this one.
    shapes = [(batch, batch * context + (batch - 1) // 2) for batch in TRACE_BATCHES for context in TRACE_CONTEXTS]
    measured_s = np.array([estimator.decode_s(batch, kv) for batch, kv in shapes])
    table_s = np.array([profile.step_time_s((), batch, kv) for batch, kv in shapes])
    assert np.median(np.abs(table_s / measured_s - 1.0)) < 2e-4
    # A run of many steps must not drift, which a bias of the table would cause.
    assert abs(np.mean(table_s / measured_s - 1.0)) < 1e-4
    law = profile.kernel_law
    straight_s = np.array(
        [
            law.token_time_s[batch] + law.decode_const_s + law.decode_seq_s * batch + law.decode_kv_s[batch] * kv
            for batch, kv in shapes
        ]
    )
    assert np.median(np.abs(straight_s / measured_s - 1.0)) < 5e-3


@needs_library
@pytest.mark.parametrize("prompts", [1, 4])
def test_steps_of_small_prompts_match_the_estimator(prompts: int) -> None:
    profile = load_profile("a100-qwen3-8b")
    estimator = Estimator(profile.model, "a100_sxm", "vllm", 1)
    errors = [
        profile.step_time_s([(tokens, 0)] * prompts, 0, 0) / estimator.prefill_s(prompts, tokens, 0) - 1.0
        for tokens in range(1, 129)
    ]
    assert np.mean(np.abs(errors)) < 0.007


@needs_library
def test_a_mixed_step_from_passes_equals_the_librarys_if_comparable() -> None:
    estimator = Estimator("Qwen/Qwen3-8B", "a100_sxm", "vllm", 1)
    for tokens, batch in ((64, 1), (512, 32), (2048, 128)):
        whole_prompt = Step(1, tokens, 0, batch, tokens)
        # The library adds the decodes' new tokens to their contexts, which is one part in a thousand here.
        averaged = whole_prompt._replace(averaged=True)
        assert estimator.step_s(whole_prompt) == pytest.approx(estimator.step_s(averaged), rel=1e-3)


@needs_library
@pytest.mark.slow
def test_the_command_reproduces_the_shipped_profile(
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
    assert made.max_context_tokens == shipped.max_context_tokens
    assert (made.inter_node, made.intra_node) == (shipped.inter_node, shipped.intra_node)
    assert "held out, decode" in capsys.readouterr().out
    # People read the file, too: it is short, with one table per line.
    assert len((tmp_path / f"{name}.json").read_text(encoding="utf-8").splitlines()) < 150
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["name"] == name
