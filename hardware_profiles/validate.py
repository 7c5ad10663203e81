"""`python -m hardware_profiles.validate`: show how accurate a profile is.

    python -m hardware_profiles.validate a100-qwen3-8b [--figures DIR]

prints where a profile comes from, what it covers and its errors on steps held out of its fit (those that it stores, and
new ones if aiconfigurator-core is installed). --figures draws modelled against measured times.

    python -m hardware_profiles.validate --all

prints a Markdown table of the errors of all shipped profiles.

    python -m hardware_profiles.validate --against DIR

prints Markdown tables that compare the shipped links and profiles with measurements that they were not made from: the
files of DIR (see `checks`).
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hardware_profiles.checks import link_table, markdown_table, splitwise_table, vllm_table
from hardware_profiles.cli import Parser, run_main
from hardware_profiles.composite import NOT_MEASURED
from hardware_profiles.connectors import Link
from hardware_profiles.held_out import HeldOut, recomputed, sample
from hardware_profiles.profile import from_file, profile_names, read_profile
from hardware_profiles.schema import ProfileFile
from hardware_profiles.step_sources import Kind
from hardware_profiles.steps import KINDS

_SEED = 7  # differs from the seed of the held-out steps that profiles store


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(prog="python -m hardware_profiles.validate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", nargs="?", help=f"name or path of a profile; names: {', '.join(profile_names())}")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="folder for NAME.png, created if missing")
    parser.add_argument("--all", action="store_true", help="print a table of all shipped profiles")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="folder of measurements to compare the shipped profiles with"
    )
    args = parser.parse_args(argv)
    if (args.name is not None) + args.all + (args.against is not None) != 1:
        parser.error("give a profile, --all or --against DIR")
    if args.name is None and args.figures is not None:
        parser.error("--figures needs a profile")
    if args.figures is not None and args.figures.exists() and not args.figures.is_dir():
        parser.error(f"--figures is not a folder: {args.figures}")
    if args.against is not None and not args.against.is_dir():
        parser.error(f"--against is not a folder: {args.against}")
    return args


def describe(file: ProfileFile) -> str:
    """Describe where the profile comes from, what it covers, and its links."""
    provenance = file.provenance
    law = from_file(file).law
    contexts = file.step_law.decode_attention.context_tokens[-1]

    def link(link: Link) -> str:
        return f"{link.latency_s * 1e6:.0f} us + bytes / {link.bandwidth_bytes_per_s / 1e9:.1f} GB/s ({link.source})"

    profile = from_file(file)
    return "\n".join(
        [
            f"{file.name}: {file.model}, {provenance.tp} GPU(s) of {provenance.system}",
            f"  steps     {provenance.nature}",
            f"            {provenance.library} {provenance.library_version}, {provenance.backend} "
            f"{provenance.backend_version}, {provenance.date}",
            f"  covers    up to {law.max_step_tokens} tokens per step, {law.max_decode_batch} of them decodes; larger "
            f"steps are errors. Mean contexts of decodes beyond {contexts} are extrapolated.",
            f"  KV        {file.kv_bytes_per_token:,} bytes per token, {file.kv_capacity_tokens:,} tokens fit",
            f"  context   {_context(file)}",
            f"  decode    {file.decode_overhead.step_s * 1e3:g} ms added to every step ({file.decode_overhead.source})",
            f"  between   {link(profile.inter_node)}",
            f"  inside    {link(profile.intra_node)}",
        ]
    )


def _context(file: ProfileFile) -> str:
    tokens = file.max_context_tokens
    if tokens is None:
        return "the model's longest prompt plus output is not known"
    return f"the model was published for prompts plus outputs of up to {tokens:,} tokens"


def error_table(kinds: Mapping[Kind, HeldOut]) -> str:
    """Errors in percent, one line per kind of step."""
    lines = [f"  {'kind':9} {'steps':>6} {'mean':>7} {'median':>7} {'p95':>7} {'worst':>7} {'bias':>7}"]
    for kind, held_out in kinds.items():
        size = np.abs(held_out.error) * 100
        figures = (size.mean(), np.median(size), np.quantile(size, 0.95), size.max(), held_out.error.mean() * 100)
        lines.append(f"  {kind:9} {len(size):6} " + " ".join(f"{figure:7.2f}" for figure in figures))
    return "\n".join(lines)


def all_table() -> str:
    """Table of all shipped profiles: mean error at calibration, and median error on the stored steps, in percent."""
    rows = []
    for name in profile_names():
        file = read_profile(name)
        kept = sample(file)
        cells = []
        for kind in KINDS:
            mean = getattr(file.provenance.held_out, f"{kind}_mape_percent")
            cells.append("-" if mean is None else f"{mean:.2f} ({np.median(np.abs(kept[kind].error)) * 100:.2f})")
        rows.append([f"`{name}`", *cells])
    return markdown_table(["mean (median) error %", *KINDS], rows)


def main() -> None:
    """Run the command line."""
    args = parse_args(sys.argv[1:])
    if args.all:
        print(all_table())
        return
    if args.against is not None:
        print("\n\n".join([link_table(args.against), vllm_table(args.against), splitwise_table(args.against)]))
        return
    file = read_profile(args.name)
    print(describe(file))
    made = file.provenance.held_out
    recorded = ", ".join(
        f"{kind} {value:g}" for kind in sample(file) if (value := getattr(made, f"{kind}_mape_percent")) is not None
    )
    print(f"\nmean error at calibration, percent ({made.steps_of_each_kind} steps of each kind): {recorded}")
    kept = sample(file)
    print("\nerror on the stored steps, percent\n" + error_table(kept))
    new = recomputed(file, _SEED)
    if new is not None:
        print("\nerror on new steps from the estimator, percent\n" + error_table(new))
    if args.figures is not None:
        from hardware_profiles.calibration_figures import draw_errors  # matplotlib takes a second to load

        args.figures.mkdir(parents=True, exist_ok=True)
        path = args.figures / f"{file.name}.png"
        source = "composed" if file.provenance.nature.startswith(NOT_MEASURED) else "measured"
        draw_errors(file.name, source, kept if new is None else new, path)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    run_main(main)
