"""`python -m hardware_profiles.calibrate`: fit the step law of a model on a system and write its profile.

    python -m hardware_profiles.calibrate --system a100_sxm --model Qwen/Qwen3-8B --backend vllm --name a100-qwen3-8b

takes step times from aiconfigurator-core (extra `calibrate`; reading a profile does not need it).

    python -m hardware_profiles.calibrate --readings FILE --system a100_sxm --name mine

takes them from a file that `python -m hardware_profiles.measure` wrote, or from a composite file (see `composite`).
"""

import argparse
import datetime
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hardware_profiles.cli import Parser, run_main
from hardware_profiles.estimator import LIBRARY
from hardware_profiles.fit import fit
from hardware_profiles.model_contexts import MAX_CONTEXT_TOKENS
from hardware_profiles.plan import Plan, plan_estimator, plan_readings
from hardware_profiles.schema import ProfileFile, StepLawSection, step_readings, write_json_file
from hardware_profiles.step_sources import steps_s
from hardware_profiles.tables import step_law

_FOLDER = Path(__file__).parent
_SAMPLE_STEPS = 150


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(prog="python -m hardware_profiles.calibrate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--system", required=True, help=f"system as {LIBRARY} names it, e.g. a100_sxm")
    parser.add_argument("--model", help="model id, e.g. Qwen/Qwen3-8B (with --readings: the file's)")
    parser.add_argument("--backend", default="vllm", help="vllm, sglang or trtllm (default: %(default)s)")
    parser.add_argument("--tp", type=int, default=1, help="GPUs in the tensor-parallel group (default: 1)")
    parser.add_argument("--name", required=True, help="name of the profile; the file is NAME.json")
    parser.add_argument(
        "--out", type=Path, default=_FOLDER, help="folder for the file, created if missing (default: the package)"
    )
    parser.add_argument("--decode-overhead-ms", type=float, default=0.0, help="added to every decode step (default: 0)")
    parser.add_argument("--decode-overhead-source", help="source of the overhead; required with one")
    parser.add_argument("--readings", type=Path, help=f"file of step times to fit instead of asking {LIBRARY}")
    parser.add_argument("--kv-capacity-tokens", type=int, help="tokens of KV that fit; required if FILE has none")
    parser.add_argument("--kv-capacity-source", help="source of the capacity; required with --kv-capacity-tokens")
    parser.add_argument(
        "--max-context-tokens",
        type=int,
        help="longest prompt plus output that the model takes (default: as published, for the models of the profiles"
        " that ship)",
    )
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="TOKENS:MS",
        help="time that a chunk of TOKENS adds to a decode step, instead of a composite file's formula; repeatable",
    )
    parser.add_argument(
        "--anchor-batch", type=int, default=32, help="decoding sequences of that step (default: %(default)s)"
    )
    parser.add_argument("--anchor-source", help="source of the anchors; required with one")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser: Parser, args: argparse.Namespace) -> None:
    if args.tp < 1:
        parser.error(f"--tp must be at least 1, got {args.tp}")
    if not 0.0 <= args.decode_overhead_ms < float("inf"):
        parser.error(f"--decode-overhead-ms must be finite and at least 0, got {args.decode_overhead_ms}")
    for option in ("decode_overhead_ms", "kv_capacity_tokens", "anchor"):
        who = option.replace("_ms", "").replace("_tokens", "") + "_source"
        if getattr(args, option) and not getattr(args, who):
            parser.error(f"--{option.replace('_', '-')} needs --{who.replace('_', '-')}")
    if args.readings is None:
        if args.model is None:
            parser.error("give --model or --readings")
        if args.anchor or args.kv_capacity_tokens is not None:
            parser.error("--anchor and --kv-capacity-tokens need --readings")
    for option in ("kv_capacity_tokens", "max_context_tokens"):
        tokens = getattr(args, option)
        if tokens is not None and tokens < 1:
            parser.error(f"--{option.replace('_', '-')} must be at least 1, got {tokens}")
    if args.anchor_batch < 1:
        parser.error(f"--anchor-batch must be at least 1, got {args.anchor_batch}")
    anchors = []
    for text in args.anchor:
        tokens, _, milliseconds = text.partition(":")
        try:
            anchors.append((int(tokens), float(milliseconds) / 1e3))
        except ValueError:
            parser.error(f"--anchor must be TOKENS:MS, such as 512:30, got {text!r}")
        if not (0 < anchors[-1][0] <= 8192 and 0.0 < anchors[-1][1] < float("inf")):
            parser.error(f"--anchor must have 1 to 8192 tokens and a time above 0, got {text!r}")
    args.anchor = anchors
    if Path(args.name).name != args.name or args.name in ("", ".", ".."):
        parser.error(f"--name must be a plain file name, got {args.name!r}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out is not a folder: {args.out}")


def calibrate(args: argparse.Namespace, command: str) -> Path:
    """Fit the law, test it on held-out steps, write the profile and return its path.

    Raises:
        InputError: the source of step times is missing or faulty, or does not cover the model on the system.
    """
    plan = plan_readings(args) if args.readings else plan_estimator(args)
    print(f"fitting {plan.model} on {args.system}: {plan.provenance['grid']}", flush=True)
    law = fit(plan.source, plan.fitted)
    held_out = _held_out(law, plan)
    content = {
        "name": args.name,
        "model": plan.model,
        "provenance": {
            **plan.provenance,
            "system": args.system,
            "date": datetime.date.today().isoformat(),
            "command": command,
            "held_out": plan.provenance["held_out"] | held_out,
        },
        "step_law": law,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_capacity_tokens": plan.kv_capacity_tokens,
        "max_context_tokens": args.max_context_tokens or MAX_CONTEXT_TOKENS.get(plan.model),
        "links": {end: asdict(link) for end, link in plan.links.items()},
        "decode_overhead": {
            "step_s": args.decode_overhead_ms / 1e3,
            "source": args.decode_overhead_source or "none added",
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path: Path = args.out / f"{args.name}.json"
    write_json_file(path, ProfileFile.model_validate(content))
    return path


def _held_out(law: StepLawSection, plan: Plan) -> dict[str, Any]:
    """Print the law's errors on the held-out steps, and return them in the form that the profile stores."""
    dense = step_law(law)
    found: dict[str, Any] = {"sample": {}}
    for kind, steps in plan.held_out.items():
        seconds = steps_s(plan.source, steps)
        law_s = np.array([dense.time_s(step.chunks, step.batch, step.kv_tokens) for step in steps])
        error = np.abs(law_s / seconds - 1.0) * 100
        found[f"{kind}_mape_percent"] = round(float(error.mean()), 3)
        found["sample"][kind] = step_readings(steps[:_SAMPLE_STEPS], seconds[:_SAMPLE_STEPS].tolist())
        print(
            f"held out, {kind}: mean error {error.mean():.2f} %, p95 {np.quantile(error, 0.95):.2f} %, "
            f"worst {error.max():.1f} % at {steps[int(error.argmax())]}",
            flush=True,
        )
    return found


def main() -> None:
    """Run the command line."""
    argv = sys.argv[1:]
    args = parse_args(argv)
    path = calibrate(args, shlex.join(["python", "-m", "hardware_profiles.calibrate", *argv]))
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
