"""`python -m hardware_profiles.validate`: how far a profile can be trusted.

    python -m hardware_profiles.validate a100-qwen3-8b [--figures DIR]

prints where a profile comes from, what it covers and its errors on steps held out of its fit (those it carries, and new
ones where aiconfigurator-core is installed), and draws modelled against measured.

    python -m hardware_profiles.validate --all

prints a Markdown table of the errors of every profile that ships.

    python -m hardware_profiles.validate --against DIR

prints, as Markdown tables, the links and profiles that ship beside measurements they were not made from: the files of
DIR, which is shared/data/calibration.
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
from hardware_profiles.sources import Kind
from hardware_profiles.steps import KINDS

_SEED = 7  # not the seed of the steps that profiles were held against when they were made


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(prog="python -m hardware_profiles.validate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", nargs="?", help=f"a profile's name or path; names: {', '.join(profile_names())}")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="folder to write NAME.png to")
    parser.add_argument("--all", action="store_true", help="print a table of all profiles that ship")
    parser.add_argument("--against", type=Path, metavar="DIR", help="folder of measurements to hold all against")
    args = parser.parse_args(argv)
    if (args.name is not None) + args.all + (args.against is not None) != 1:
        parser.error("give a profile, --all or --against DIR")
    if args.name is None and args.figures is not None:
        parser.error("--figures goes with a profile")
    for folder in (args.figures, args.against):
        if folder is not None and not folder.is_dir():
            parser.error(f"not a folder: {folder}")
    return args


def describe(file: ProfileFile) -> str:
    """Where the profile comes from, what it covers, and its links."""
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
            f"  covers    up to {law.max_step_tokens} tokens a step, {law.max_decode_batch} of them decodes; more is "
            f"refused. Mean contexts of decodes beyond {contexts} go on along the last line.",
            f"  KV        {file.kv_bytes_per_token:,} bytes a token, {file.kv_capacity_tokens:,} tokens fit",
            f"  decode    {file.decode_overhead.step_s * 1e3:g} ms added to every step ({file.decode_overhead.source})",
            f"  between   {link(profile.inter_node)}",
            f"  inside    {link(profile.intra_node)}",
        ]
    )


def error_table(kinds: Mapping[Kind, HeldOut]) -> str:
    """Errors in percent by kind of step, one a line."""
    lines = [f"  {'kind':9} {'steps':>6} {'mean':>7} {'median':>7} {'p95':>7} {'worst':>7} {'bias':>7}"]
    for kind, held_out in kinds.items():
        size = np.abs(held_out.error) * 100
        figures = (size.mean(), np.median(size), np.quantile(size, 0.95), size.max(), held_out.error.mean() * 100)
        lines.append(f"  {kind:9} {len(size):6} " + " ".join(f"{figure:7.2f}" for figure in figures))
    return "\n".join(lines)


def all_table() -> str:
    """Mean error when made, and median on the steps carried, of every profile that ships, percent."""
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
    print(f"\nmean error when made, percent ({made.steps_of_each_kind} steps of each kind): {recorded}")
    kept = sample(file)
    print("\nerror on the steps it carries, percent\n" + error_table(kept))
    new = recomputed(file, _SEED)
    if new is not None:
        print("\nerror on new steps from the estimator, percent\n" + error_table(new))
    if args.figures is not None:
        from hardware_profiles.figures import draw_errors  # matplotlib takes a second to load

        path = args.figures / f"{file.name}.png"
        source = "composed" if file.provenance.nature.startswith(NOT_MEASURED) else "measured"
        draw_errors(file.name, source, kept if new is None else new, path)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    run_main(main)
