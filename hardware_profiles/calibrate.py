"""`python -m hardware_profiles.calibrate`: fit the step law of a model on a system and write its profile.

    python -m hardware_profiles.calibrate --system a100_sxm --model Qwen/Qwen3-8B --backend vllm --name a100-qwen3-8b

Needs the extra `calibrate`; the profiles it writes need nothing.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from hardware_profiles.cli import Parser, run_main
from hardware_profiles.estimator import LIBRARY, Estimator
from hardware_profiles.fit import FittedLaw, fit, token_knots
from hardware_profiles.schema import ProfileFile
from hardware_profiles.steps import KINDS, draw, draw_description, estimated_s, grid, grid_description

_FOLDER = Path(__file__).parent
HELD_OUT_STEPS = 2000
HELD_OUT_SEED = 20261121


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(prog="python -m hardware_profiles.calibrate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--system", required=True, help=f"system as {LIBRARY} names it, e.g. a100_sxm")
    parser.add_argument("--model", required=True, help="model id, e.g. Qwen/Qwen3-8B")
    parser.add_argument("--backend", default="vllm", help="vllm, sglang or trtllm (default: %(default)s)")
    parser.add_argument("--tp", type=int, default=1, help="GPUs in the tensor-parallel group (default: 1)")
    parser.add_argument("--name", required=True, help="name of the profile; the file is NAME.json")
    parser.add_argument("--out", type=Path, default=_FOLDER, help="folder to write it to (default: the package)")
    parser.add_argument("--decode-overhead-ms", type=float, default=0.0, help="added to every decode step (default: 0)")
    parser.add_argument("--decode-overhead-source", help="who says so; required with an overhead")
    args = parser.parse_args(argv)
    if args.tp < 1:
        parser.error(f"--tp must be at least 1, got {args.tp}")
    if not 0.0 <= args.decode_overhead_ms < float("inf"):
        parser.error(f"--decode-overhead-ms must be finite and at least 0, got {args.decode_overhead_ms}")
    if args.decode_overhead_ms and not args.decode_overhead_source:
        parser.error("--decode-overhead-ms needs --decode-overhead-source")
    if Path(args.name).name != args.name or args.name in ("", ".", ".."):
        parser.error(f"--name must be a plain file name, got {args.name!r}")
    if not args.out.is_dir():
        parser.error(f"--out is not a folder: {args.out}")
    return args


def calibrate(args: argparse.Namespace, command: str) -> Path:
    """Fit, hold out, write; returns the file written.

    Raises:
        InputError: the estimator is missing or cannot serve what was asked.
    """
    estimator = Estimator(args.model, args.system, args.backend, args.tp)
    kv = estimator.kv_size()
    tokens = token_knots(estimator)
    steps = grid(kv.capacity_tokens, tokens)
    print(f"fitting {args.model} on {args.system} (tp {args.tp}): {grid_description(steps)}", flush=True)
    law = fit(estimator, tokens, steps)
    mape_percent = {}
    rng = np.random.default_rng(HELD_OUT_SEED)
    for kind in KINDS:
        held_out = draw(kind, HELD_OUT_STEPS, kv.capacity_tokens, rng)
        error = np.abs(law.times_s(held_out) / estimated_s(estimator, kind, held_out) - 1.0) * 100
        mape_percent[kind] = float(error.mean())
        print(
            f"held out, {kind}: mean error {error.mean():.2f} %, p95 {np.quantile(error, 0.95):.2f} %, "
            f"worst {error.max():.1f} % at {held_out[int(error.argmax())]}",
            flush=True,
        )
    content = {
        "name": args.name,
        "model": args.model,
        "provenance": {
            "library": LIBRARY,
            "library_version": estimator.library_version,
            "system": args.system,
            "backend": args.backend,
            "backend_version": estimator.backend_version,
            "tp": args.tp,
            "date": datetime.date.today().isoformat(),
            "command": command,
            "grid": grid_description(steps),
            "kv_capacity": kv.how,
            "held_out": {
                "steps_of_each_kind": HELD_OUT_STEPS,
                "seed": HELD_OUT_SEED,
                "drawn": draw_description(),
                **{f"{kind}_mape_percent": round(mape_percent[kind], 3) for kind in KINDS},
            },
        },
        "step_law": _law_content(law),
        "kv_bytes_per_token": kv.bytes_per_token,
        "kv_capacity_tokens": kv.capacity_tokens,
        "links": _links(estimator, args.system, args.tp),
        "decode_overhead": {
            "step_s": _rounded(args.decode_overhead_ms / 1e3),
            "source": args.decode_overhead_source or "none added",
        },
    }
    path: Path = args.out / f"{args.name}.json"
    _write(path, content)
    return path


def _law_content(law: FittedLaw) -> dict[str, Any]:
    names = ("chunk_const_s", "chunk_context_s", "chunk_self_s", "decode_const_s", "decode_seq_s")
    return {
        "token_time": {"tokens": law.tokens, "seconds": [_rounded(s) for s in law.token_time_s]},
        **{name: _rounded(value) for name, value in zip(names, law.constants, strict=True)},
        "decode_kv": {"sequences": law.sequences, "seconds": [_rounded(s) for s in law.decode_kv_s]},
    }


def _rounded(value: float) -> float:
    # Seven digits are far below the error of the fit, and rounding keeps a table monotone.
    return float(f"{value:.7g}")


def _links(estimator: Estimator, system: str, tp: int) -> dict[str, Any]:
    """Links of one engine; each GPU of a group sends its shard over its own NIC or NVLink."""
    measured = tomllib.loads((_FOLDER / "measured_links.toml").read_text(encoding="utf-8"))
    links = measured[system] if system in measured else estimator.data_sheet_links()
    if tp == 1:
        return links
    return {
        name: {
            "latency_s": link["latency_s"],
            "bandwidth_bytes_per_s": link["bandwidth_bytes_per_s"] * tp,
            "source": f"{link['source']}; times {tp} GPUs, each sending its shard",
        }
        for name, link in links.items()
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write the profile whole or not at all: checked, to a temporary name, then renamed."""
    text = json.dumps(content, indent=1)
    # Each list of numbers on one line, or the file is a thousand lines long.
    text = re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), text)
    ProfileFile.model_validate_json(text)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    """Run the command line."""
    argv = sys.argv[1:]
    args = parse_args(argv)
    path = calibrate(args, shlex.join(["python", "-m", "hardware_profiles.calibrate", *argv]))
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
