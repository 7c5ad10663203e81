"""`python -m hardware_profiles.measure`: its arithmetic on tiny shapes, on a CPU."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import InputError
from hardware_profiles.measure import Limits, cuda_timer, grid, kv_capacity_tokens, main, median_s, parse_args, read_all
from hardware_profiles.readings import Readings, ReadingsFile
from hardware_profiles.schema import step_readings
from hardware_profiles.step_sources import Step
from hardware_profiles.transformer import Shape, Transformer

TINY = Shape(layers=2, hidden=16, heads=4, kv_heads=2, head_dim=8, ffn=24, vocab=32)
QWEN3_8B = Shape(layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=12288, vocab=151936)
LIMITS = Limits(tokens=400, batch=16, context_tokens=96, held_out=5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_weights_and_kv_of_a_known_model_are_right() -> None:
    assert QWEN3_8B.weights == pytest.approx(8.19e9, rel=1e-3)
    assert QWEN3_8B.kv_bytes_per_token(2) == 147_456
    # 0.9 of 80 GiB minus weights, divided by KV bytes per token.
    assert kv_capacity_tokens(QWEN3_8B, 80 * 2**30) == (int(0.9 * 80 * 2**30) - 2 * QWEN3_8B.weights) // 147_456
    with pytest.raises(InputError, match="16 GB do not fit"):
        kv_capacity_tokens(QWEN3_8B, 16 * 10**9)


def test_flops_of_a_step_equal_a_hand_count() -> None:
    layer = 16 * 8 * (2 * 4 + 2 * 2) + 3 * 16 * 24
    pairs = 2 * (3 * 5 + (1 + 2 + 3)) + 7 * 11  # two chunks of 3 over 5 tokens each; 7 decodes over 11
    by_hand = 2 * (2 * 3 + 7) * 2 * layer + 4 * 2 * 4 * 8 * pairs + 2 * (2 + 7) * 32 * 16
    assert TINY.flops(Step(2, 3, 5, 7, 11)) == by_hand


def test_bytes_of_a_step_are_its_weights_and_its_kv() -> None:
    weights = TINY.weights - TINY.vocab * TINY.hidden  # the embedding is looked up, not read as a whole
    assert TINY.bytes_read(Step(0, 0, 0, 7, 11), 2) == 2 * weights + 77 * TINY.kv_bytes_per_token(2)
    assert TINY.bytes_read(Step(2, 3, 5, 0, 0), 2) == 2 * weights + 16 * TINY.kv_bytes_per_token(2)


@pytest.mark.parametrize("broken", [{"layers": 0}, {"kv_heads": 3}, {"vocab": -1}])
def test_an_invalid_shape_is_an_error(broken: dict[str, int]) -> None:
    counts = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__} | broken
    with pytest.raises(ValueError, match=next(iter(broken))):
        Shape(**counts)


@pytest.mark.parametrize("step", [Step(1, 5, 0, 0, 0), Step(2, 3, 7, 0, 0), Step(0, 0, 0, 3, 11), Step(2, 3, 7, 3, 11)])
def test_a_step_returns_logits_for_each_prompt_and_each_decode(step: Step) -> None:
    logits = Transformer(TINY, "cpu", torch.float32, 64).step(step)
    assert logits.shape == (step.prompts + step.batch, TINY.vocab)
    assert bool(torch.isfinite(logits).all())


def test_sequences_that_need_more_kv_than_the_pool_has_share_it() -> None:
    assert Transformer(TINY, "cpu", torch.float32, 64).step(Step(0, 0, 0, 40, 60)).shape == (40, TINY.vocab)


def test_attention_is_causal_over_the_context_and_grouped_by_heads() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY, "cpu", torch.float32, 64)
    pool = model._layers[0][4]
    qkv = torch.randn(3, (4 + 2 * 2) * 8)
    attended = model._attention(qkv, Step(1, 3, 5, 0, 0), pool).view(3, 4, 8)
    query, key, value = qkv[:, :32].view(3, 4, 8), qkv[:, 32:48].view(3, 2, 8), qkv[:, 48:].view(3, 2, 8)
    keys, values = torch.cat([pool[0, :5], key]), torch.cat([pool[1, :5], value])
    for token in range(3):
        for head in range(4):
            seen = 5 + token + 1
            weights = torch.softmax(keys[:seen, head // 2] @ query[token, head] / math.sqrt(8), dim=0)
            assert attended[token, head] == pytest.approx(weights @ values[:seen, head // 2], abs=1e-5)


def test_the_median_is_of_the_timings_after_the_warm_up() -> None:
    timings = iter([99.0, 98.0, 3.0, 1.0, 2.0])
    assert median_s(lambda: next(timings), warm_up=2, repeats=3) == 2.0


@given(
    tokens=st.integers(200, 9000), batch=st.integers(1, 64), context=st.integers(64, 20_000), held_out=st.integers(1, 9)
)
def test_the_grid_stays_within_its_limits(tokens: int, batch: int, context: int, held_out: int) -> None:
    plan = grid(Limits(tokens, batch, context, held_out))
    assert plan.prefill_tokens[0] == 1
    assert plan.prefill_tokens[-1] == tokens
    assert (plan.batches[0], plan.batches[-1]) == (1, batch)
    assert all(each % 16 == 0 for each in plan.contexts)
    assert len(plan.held_out) == 3 * held_out
    for step in (*plan.fitted, *plan.held_out):
        assert 0 < step.prompts * step.new_tokens + step.batch <= tokens
        assert step.batch <= batch
        assert max(step.context_tokens, step.decode_context_tokens) <= context


def test_calibrate_accepts_the_readings_file() -> None:
    plan = grid(LIMITS)
    timer = lambda step: 1e-3 + TINY.flops(step) / 1e9  # noqa: E731
    prefill, decode, fitted_s, held_out_s = read_all(timer, plan)
    file = ReadingsFile(
        model="toy", nature="made up", gpu="none", software="none", software_version="0", tp=1, date="2026-11-21",
        command="none", kv_bytes_per_token=TINY.kv_bytes_per_token(2), kv_capacity_tokens=1000, prefill=prefill,
        decode=decode, fitted=step_readings(plan.fitted, fitted_s), held_out=step_readings(plan.held_out, held_out_s),
    )  # fmt: skip
    source = Readings(ReadingsFile.model_validate_json(file.model_dump_json()))
    for step in (Step(1, 400, 0, 0, 0), Step(0, 0, 0, 16, 32)):
        seconds = source.decode_s(16, 16 * 32) if step.batch else source.prefill_s(1, 400, 0)
        assert seconds == pytest.approx(timer(step), rel=1e-6)
    assert source.step_s(plan.held_out[2]) == pytest.approx(timer(plan.held_out[2]), rel=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.slow
def test_without_a_gpu_the_error_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hardware_profiles.measure"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: this machine has no CUDA GPU: torch.cuda.is_available() is false\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_command_writes_a_readings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {"layers": 2, "hidden": 256, "heads": 4, "kv-heads": 2, "head-dim": 64, "ffn": 512, "vocab": 1000}
    small |= {"max-tokens": 400, "max-batch": 16, "max-context": 96, "held-out": 2, "repeats": 2}
    path = tmp_path / "readings.json"
    arguments = [text for name, count in small.items() for text in (f"--{name}", str(count))]
    monkeypatch.setattr(sys, "argv", ["measure", *arguments, "--out", str(path)])
    main()
    file = ReadingsFile.model_validate_json(path.read_text(encoding="utf-8"))
    assert file.decode.sequences[-1] == 16
    model = Transformer(TINY, "cuda", torch.bfloat16, 64)
    assert cuda_timer(model, 1, 3)(Step(1, 5, 0, 0, 0)) > 0.0


@pytest.mark.parametrize(
    "arguments",
    [["--layers", "0"], ["--kv-heads", "3"], ["--max-batch", "0"], ["--max-tokens", "10"], ["--max-context", "3"],
     ["--out", "/no/such/folder/x.json"], ["--warm-up", "-1"], ["--repeats", "0"], ["--layers", "many"]],
)  # fmt: skip
def test_invalid_input_prints_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_args(arguments)
    assert left.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
