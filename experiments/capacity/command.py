"""`python -m experiments.capacity`: how much each policy carries on each split of the nodes into prefill and decode.

The capacity of a policy on a split is the highest rate at which it meets both SLOs of 90 % of the requests, found by
bisection for each seed apart. A seed fixes the lengths and the pattern of arrivals and the rate their pace, so policies
are compared on the same requests. Goodput is that rate, for each GPU (DistServe, arXiv 2401.09670).

Writes into --out: capacity.csv (a row a policy, split and seed), figures/capacity.png, summary.md, and report.html,
both of these on one page. Finished searches are kept in cells/; the same command again, or one with more policies,
splits or seeds, takes up where it stopped. The default sizes take about a quarter of an hour on two cores.
"""

import csv
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from math import isinf
from pathlib import Path

import policies
from envs.cluster import ClusterConfig, parse_shape
from envs.generators import slos_of_family
from experiments.arguments import (
    add_cluster,
    add_executor,
    add_slos,
    check_counts,
    check_executor,
    check_families,
    check_positive,
    cluster,
    slos,
)
from experiments.capacity import figures as capacity_figures
from experiments.capacity import report as capacity_report
from experiments.capacity.report import Capacity
from experiments.cells import DRAIN_S
from experiments.digests import digest, policy_files, simulation_digest
from experiments.illustrate import Picture
from experiments.knee import TARGET, TOLERANCE, Search, family_at_rate, search_all
from experiments.markdown import plain
from experiments.metrics import WARMUP_SHARE, gpus
from experiments.output import claim, write_report
from experiments.printed import counted, slos_line
from experiments.provenance import made_by
from experiments.tuned import Tuned
from hardware_profiles import InputError
from hardware_profiles.cli import Parser
from hardware_profiles.files import replacing

NODES = (4, 6, 8)
NOT_SEARCHED = ("random", "static-share")
"""Rules that are nobody's: they are searched where they are named."""
REQUESTS = 800
SPAN_S = 30.0
SEEDS = 8
# Not among those that knees and tuning use, nor those that comparisons count from 0.
FIRST_SEED = 950_000


def splits(nodes: int) -> list[str]:
    """Every split of `nodes` nodes that has both roles."""
    return [f"{prefill}P{nodes - prefill}D" for prefill in range(1, nodes)]


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or a name that stands for nothing.
    """
    parser = Parser(prog="python -m experiments.capacity", description="The load each policy carries on each split.")
    add = parser.add_argument
    known = [name for name in policies.names() if name not in NOT_SEARCHED]
    add("--policies", nargs="+", default=known, metavar="P", help=f"default: {' '.join(known)}")
    add("--tuned", type=Path, metavar="FILE", help="tuned.json: policies named without knobs get theirs from it")
    add("--workload", default="burst", metavar="W", help="a family (default %(default)s)")
    every = [split for nodes in NODES for split in splits(nodes)]
    add("--splits", nargs="+", default=every, metavar="NPMD", help="default: every split of 4, 6 and 8 nodes")
    add("--requests", type=int, default=REQUESTS, metavar="N", help="requests a run, at least (default %(default)s)")
    add("--span", type=float, default=SPAN_S, metavar="S", help="seconds of arrivals, at least (default %(default)g)")
    add("--seeds", type=int, default=SEEDS, metavar="N", help="searches of each (default %(default)s)")
    add_cluster(parser)
    add_slos(parser)
    add("--out", type=Path, metavar="DIR", help="default: runs/capacity-, and a digest of the command")
    add_executor(parser)
    args = parser.parse_args(argv)
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    check_counts(args, "requests", "seeds")
    check_executor(args)
    check_positive(args, "span")
    slos(args)
    check_families([args.workload])
    for name in ("policies", "splits"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    for split in args.splits:
        cluster(args, split)
    if args.tuned is not None:
        tuned = Tuned.read(args.tuned)
        tuned.check(cluster(args, tuned.contents["cluster"]), slos(args))
        args.policies = tuned.replace(args.policies)
    for policy in args.policies:
        policies.make(policy)
    return args


def measure(args: Namespace, folder: Path) -> list[Capacity]:
    """Do the searches and return what was found, by policy and split.

    Raises:
        InputError: a policy meets the target at every rate.
    """
    at_rate = family_at_rate(args.workload, args.requests, span_s=args.span, slos=slos(args))
    configs = {split: cluster(args, split) for split in args.splits}
    shared = _shared(args)
    searches = {
        (policy, split): [Search(policy, args.workload, at_rate, config, (FIRST_SEED + i,)) for i in range(args.seeds)]
        for split, config in configs.items()
        for policy in args.policies
    }
    fingerprint = digest(repr(shared), simulation_digest(), files=policy_files(args.policies))
    every = [search for several in searches.values() for search in several]
    workers = {"jobs": args.jobs, "executor": args.executor}
    found = search_all(every, folder / "cells", fingerprint=fingerprint, **workers)
    for search, knee in found.items():
        if isinf(knee.rate_rps):
            raise InputError(
                f"{search.policy} meets the target at every rate on {search.config.shape}: a longer --span"
            )
    return [
        Capacity(policy, split, gpus(configs[split]), tuple([found[search] for search in several]))
        for (policy, split), several in searches.items()
    ]


def _shared(args: Namespace) -> dict[str, object]:
    """What all searches in a folder have in common."""
    apart = ("out", "jobs", "executor", "line", "policies", "tuned", "splits", "seeds")
    return {name: value for name, value in vars(args).items() if name not in apart}


def write_csv(found: Sequence[Capacity], path: Path) -> None:
    """A row a policy, split and seed."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        header = ["policy", "split", "prefill_nodes", "decode_nodes", "gpus", "seed", "goodput_rps"]
        rows.writerow([*header, "goodput_rps_per_gpu", "missed_below", "runs"])
        for one in found:
            for i, knee in enumerate(one.knees):
                key = [policies.label(one.policy), one.split, *parse_shape(one.split), one.gpus, FIRST_SEED + i]
                rows.writerow([*key, knee.rate_rps, knee.rate_rps / one.gpus, int(knee.dipped), len(knee.tried)])


def about(args: Namespace, config: ClusterConfig) -> list[str]:
    """What was run, a line of Markdown each."""
    return [
        f"{plain(config.profile.name)}; node reports {args.report_age_ms:g} ms old",
        f"workload {plain(args.workload)}: {args.requests:,} requests or those of {args.span:g} s, whichever are more; "
        f"{args.seeds} seeds",
        f"capacity is the highest rate at which {TARGET:.0%} of the requests that arrived in the measured window meet "
        f"both SLOs, found by bisection to {TOLERANCE:.0%}; goodput is that rate for each GPU (arXiv 2401.09670)",
        slos_line({args.workload: slos_of_family(args.workload, slos(args))}),
        f"the first {WARMUP_SHARE:.0%} of the span of arrivals is warm-up and left out; a run ends at the latest "
        f"{DRAIN_S:g} s after its last arrival",
        *([Tuned.read(args.tuned).about()] if args.tuned is not None else []),
        "each seed is searched apart, on the same requests for every policy; [95 % intervals] are bootstraps over what "
        "the seeds gave, in pairs between policies",
    ]


def capacity(args: Namespace) -> None:
    """Do what `parse` read, write its folder, and print its tables."""
    config = cluster(args, args.splits[0])
    folder = args.out or Path("runs") / f"capacity-{digest(repr(_shared(args)))}"
    claim(folder, _shared(args))
    found = measure(args, folder)
    write_csv(found, folder / "capacity.csv")
    (folder / "figures").mkdir(exist_ok=True)
    picture = Picture(
        folder / "figures" / "capacity.png",
        "goodput per GPU by policy and split",
        "Goodput per GPU: policies by splits of the nodes into prefill and decode. Bold is the best of a split. "
        f"Means of {counted(args.seeds, 'seed')}.",
    )
    capacity_figures.heat_map(found, f"{args.workload}, {config.profile.name}", picture.path)
    seeds = f"{FIRST_SEED} to {FIRST_SEED + args.seeds - 1}"
    made = made_by(f"python -m experiments.capacity {args.line}", config.profile, seeds)
    write_report(capacity_report.summary(found, about(args, config), picture, made), [picture.path], folder)
    parts = [capacity_report.goodput_table(found), capacity_report.best_table(found)]
    if savings := capacity_report.savings_of_total(found):
        parts.append(capacity_report.saving_table(savings))
    print("\n\n".join(parts).replace("`", ""))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, capacity.csv")
