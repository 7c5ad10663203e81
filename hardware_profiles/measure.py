"""`python -m hardware_profiles.measure`: time engine steps of a model shape on this machine's GPU.

    python -m hardware_profiles.measure --model mine --layers 32 --hidden 4096 --ffn 14336 --out readings.json

times prefill, decode and mixed steps of a dense transformer of that shape in PyTorch (bf16,
scaled_dot_product_attention) and writes their medians, by CUDA events after a warm-up, to a file for `python -m
hardware_profiles.calibrate --readings`. The defaults of the shape are those of Qwen3-8B. Without a CUDA GPU the command
prints one line and exits with code 2.
"""

import argparse
import datetime
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hardware_profiles.cli import Parser, run_main
from hardware_profiles.errors import InputError
from hardware_profiles.readings import DecodeReadings, PrefillReadings, ReadingsFile
from hardware_profiles.schema import rounded, step_readings, write_json_file
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS
from hardware_profiles.step_sources import Step
from hardware_profiles.steps import ladder
from hardware_profiles.transformer import Shape, Transformer

Timer = Callable[[Step], float]

_ELEMENT_BYTES = 2  # bf16
_MEMORY_FRACTION = 0.9  # share of the GPU's memory, as vLLM's default
_POOL_BYTES = 4e9  # KV that steps read from: far more than fits into the GPU's caches
_DRAW_SEED = 20261121


class Limits(NamedTuple):
    """The largest prompt, batch and context to time, and the number of held-out steps of each kind."""

    tokens: int
    batch: int
    context_tokens: int
    held_out: int


class Grid(NamedTuple):
    """The steps to time: prompts alone, decode batches by context, other steps, and held-out steps to test a law on."""

    prefill_tokens: list[int]
    batches: list[int]
    contexts: list[int]
    fitted: list[Step]
    held_out: list[Step]


def grid(limits: Limits) -> Grid:
    """The steps to time, none larger than `limits`; contexts are multiples of `CONTEXT_GRAIN_TOKENS`."""
    largest_chunk = max(2, limits.tokens - limits.batch)
    contexts = [0, *ladder(64, limits.context_tokens, 2, 3)]
    fitted = [
        Step(prompts, tokens // prompts, context, 0, 0)
        for prompts in (1, 2, 4)
        for tokens in ladder(8, largest_chunk, 3, 6)
        for context in contexts
        if prompts + context > 1 and tokens >= prompts
    ]
    fitted += [
        Step(1, tokens, context, batch, decode_context)
        for tokens in ladder(min(64, largest_chunk), min(2048, largest_chunk), 2, 4)
        for context in contexts[:3]
        for batch in ladder(1, limits.batch, 2, 3)
        for decode_context in (min(1024, limits.context_tokens), limits.context_tokens)
    ]
    return Grid(
        prefill_tokens=ladder(1, limits.tokens, 24, 24),
        batches=ladder(1, limits.batch, 6, 10),
        contexts=sorted({max(1, c // CONTEXT_GRAIN_TOKENS) * CONTEXT_GRAIN_TOKENS for c in _decode_contexts(limits)}),
        fitted=fitted,
        held_out=_held_out(limits, largest_chunk),
    )


def _decode_contexts(limits: Limits) -> list[int]:
    return ladder(CONTEXT_GRAIN_TOKENS, max(limits.context_tokens, 2 * CONTEXT_GRAIN_TOKENS), 4, 10)


def _held_out(limits: Limits, largest_chunk: int) -> list[Step]:
    """Random steps of each kind; every count is drawn log-uniformly."""
    rng = np.random.default_rng(_DRAW_SEED)

    def pick(low: int, high: int) -> int:
        return min(high, int(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))

    steps = []
    for _ in range(limits.held_out):
        prompts = pick(1, 4)
        chunks = (prompts, pick(4, largest_chunk) // prompts, pick(1, limits.context_tokens))
        decodes = (pick(1, limits.batch), pick(CONTEXT_GRAIN_TOKENS, limits.context_tokens))
        steps += [Step(*chunks, 0, 0), Step(0, 0, 0, *decodes), Step(*chunks, *decodes)]
    return steps


def read_all(timer: Timer, plan: Grid) -> tuple[PrefillReadings, DecodeReadings, list[float], list[float]]:
    """Time every step of the grid: prompts alone, decode batches, fitted steps and held-out steps."""
    prefill_s = [rounded(timer(Step(1, tokens, 0, 0, 0))) for tokens in plan.prefill_tokens]
    decode_s = [[rounded(timer(Step(0, 0, 0, batch, context))) for context in plan.contexts] for batch in plan.batches]
    return (
        PrefillReadings(tokens=plan.prefill_tokens, seconds=prefill_s),
        DecodeReadings(sequences=plan.batches, context_tokens=plan.contexts, seconds=decode_s),
        [timer(step) for step in plan.fitted],
        [timer(step) for step in plan.held_out],
    )


def median_s(run: Callable[[], float], warm_up: int, repeats: int) -> float:
    """The median of `repeats` timings in seconds, after `warm_up` timings that are discarded."""
    for _ in range(warm_up):
        run()
    return statistics.median(run() for _ in range(repeats))


def cuda_timer(model: Transformer, warm_up: int, repeats: int) -> Timer:
    """A timer of a model's steps on the current CUDA device, by CUDA events."""
    event: Any = torch.cuda.Event  # untyped in torch

    def once(step: Step) -> float:
        start, end = event(enable_timing=True), event(enable_timing=True)
        start.record()
        model.step(step)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return lambda step: median_s(lambda: once(step), warm_up, repeats)


def kv_capacity_tokens(shape: Shape, memory_bytes: int) -> int:
    """Tokens of KV that fit into the GPU's memory next to the weights.

    Raises:
        InputError: the weights alone do not fit.
    """
    left = int(_MEMORY_FRACTION * memory_bytes) - shape.weights * _ELEMENT_BYTES
    tokens = left // shape.kv_bytes_per_token(_ELEMENT_BYTES)
    if tokens < 1:
        raise InputError(f"the model's {shape.weights * _ELEMENT_BYTES / 1e9:.0f} GB do not fit in the GPU's memory")
    return tokens


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(prog="python -m hardware_profiles.measure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="Qwen/Qwen3-8B", help="name of the model (default: %(default)s)")
    for name, default, meaning in (
        ("layers", 36, "decoder layers"),
        ("hidden", 4096, "width of the residual stream"),
        ("heads", 32, "query heads"),
        ("kv-heads", 8, "key and value heads"),
        ("head-dim", 128, "width of a head"),
        ("ffn", 12288, "inner width of the gated feed-forward block"),
        ("vocab", 151936, "entries of the vocabulary"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("readings.json"), help="file to write (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=8704, help="largest step, tokens (default: %(default)s)")
    parser.add_argument("--max-batch", type=int, default=256, help="largest decode batch (default: %(default)s)")
    parser.add_argument("--max-context", type=int, default=8192, help="longest context, tokens (default: %(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=40, help="steps of each kind to hold out (default: %(default)s)"
    )
    parser.add_argument("--warm-up", type=int, default=3, help="timings to discard first (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="timings per median (default: %(default)s)")
    args = parser.parse_args(argv)
    for name in ("max_batch", "held_out", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.warm_up < 0:
        parser.error(f"--warm-up must be at least 0, got {args.warm_up}")
    if args.max_context < 64:
        parser.error(f"--max-context must be at least 64, got {args.max_context}")
    if args.max_tokens < args.max_batch + 128:
        parser.error(f"--max-tokens must be at least --max-batch + 128, got {args.max_tokens}")
    if not args.out.parent.is_dir():
        parser.error(f"not a folder: {args.out.parent}")
    names = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")
    try:
        args.shape = Shape(**{name: getattr(args, name) for name in names})
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    """Run the command line."""
    argv = sys.argv[1:]
    args = parse_args(argv)
    if not torch.cuda.is_available():
        raise InputError("this machine has no CUDA GPU: torch.cuda.is_available() is false")
    shape: Shape = args.shape
    device = torch.cuda.get_device_properties(0)
    capacity = kv_capacity_tokens(shape, device.total_memory)
    token_bytes = shape.kv_bytes_per_token(_ELEMENT_BYTES)
    pool_tokens = max(args.max_context, min(capacity // 2, int(_POOL_BYTES / token_bytes)))
    model = Transformer(shape, "cuda", torch.bfloat16, pool_tokens)
    timer = cuda_timer(model, args.warm_up, args.repeats)
    plan = grid(Limits(args.max_tokens, args.max_batch, args.max_context, args.held_out))
    steps = len(plan.prefill_tokens) + len(plan.batches) * len(plan.contexts) + len(plan.fitted) + len(plan.held_out)
    print(f"timing {steps} steps of {args.model} on {device.name}", flush=True)
    prefill, decode, fitted_s, held_out_s = read_all(timer, plan)
    file = ReadingsFile(
        model=args.model,
        nature=f"whole steps of a dense transformer of this shape, timed in PyTorch on this GPU: {shape}",
        gpu=device.name,
        software="torch",
        software_version=torch.__version__,
        tp=1,
        date=datetime.date.today().isoformat(),
        command=shlex.join(["python", "-m", "hardware_profiles.measure", *argv]),
        kv_bytes_per_token=token_bytes,
        kv_capacity_tokens=capacity,
        prefill=prefill,
        decode=decode,
        fitted=step_readings(plan.fitted, fitted_s),
        held_out=step_readings(plan.held_out, held_out_s),
    )
    write_json_file(args.out, file)
    prompt, batch = Step(1, plan.prefill_tokens[-1], 0, 0, 0), Step(0, 0, 0, 1, plan.contexts[0])
    print(f"longest prompt: {shape.flops(prompt) / prefill.seconds[-1] / 1e12:.0f} TFLOP/s")
    print(f"one decode: {shape.bytes_read(batch, _ELEMENT_BYTES) / decode.seconds[0][0] / 1e9:.0f} GB/s")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run_main(main)
