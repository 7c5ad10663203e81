"""`python -m experiments.compare`: policies side by side on the same requests.

Writes into --out: cells.csv (a row a policy, workload, load and seed), requests.csv.gz (a row a request), summary.md
(tables with intervals), figures/*.png, and report.html, both of these on one page. Finished cells are kept in cells/ as
it goes; the same command again takes up where it stopped.
"""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

import policies
from envs.generators import families, generate, slos_of_family
from envs.traces import formats, read_trace, slos_of_format
from envs.workload import Workload
from experiments.arguments import (
    add_cluster,
    add_executor,
    add_slos,
    check_counts,
    check_executor,
    check_families,
    check_positive,
    cluster,
    option,
    slos,
)
from experiments.cells import DRAIN_S, Cell, run_cells
from experiments.digests import config_digest, digest, policy_files, simulation_digest
from experiments.knee import TARGET, knees
from experiments.metrics import WARMUP_SHARE
from experiments.output import claim, write_all
from experiments.printed import slos_line
from experiments.provenance import made_by
from experiments.tuned import Tuned
from hardware_profiles import InputError
from hardware_profiles.cli import Parser, run_main

LOADS = [0.5, 0.7, 0.85, 0.95, 1.05]
SEEDS = 20
REQUESTS = 3000


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or an option that has no meaning with the others.
    """
    parser = Parser(prog="python -m experiments.compare", description="Compare policies on the same requests.")
    add = parser.add_argument
    rules = ", ".join([policies.label(name) for name in [*policies.names(), *policies.bounds()]])
    add("--policies", nargs="+", required=True, metavar="P", help=f"{rules}; module:Class; or a trained one's path")
    add("--tuned", type=Path, metavar="FILE", help="tuned.json: policies named without knobs get theirs from it")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workload", nargs="+", metavar="W", help=f"families: {', '.join(families())}")
    source.add_argument("--trace", type=Path, metavar="FILE", help="a recorded workload")
    add("--trace-format", choices=formats(), metavar="F", help=f"{', '.join(formats())}; needed with --trace")
    add("--rate-scale", type=float, metavar="X", help="compress the trace's time by X (default 1)")
    add("--limit", type=int, metavar="N", help="only the trace's first N requests")
    add("--requests", type=int, metavar="N", help=f"requests a cell of a family (default {REQUESTS})")
    add("--cluster", default="2P2D", metavar="NPMD", help="prefill and decode nodes (default %(default)s)")
    add_cluster(parser)
    add_slos(parser)
    add("--seeds", type=int, metavar="N", help=f"seeds 0 to N - 1 (default {SEEDS}; 1 for a trace)")
    default = " ".join(f"{load:g}" for load in LOADS)
    loads_are = f"multiples of the knee of static (default {default}); of a trace's --rate-scale (default 1)"
    add("--loads", type=float, nargs="+", metavar="L", help=loads_are)
    add("--out", type=Path, metavar="DIR", help="default: runs/compare-, and a digest of the command")
    add_executor(parser)
    args = _checked(parser.parse_args(argv))
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    return args


def _checked(args: Namespace) -> Namespace:
    if args.trace:
        only_for_families, defaults = ["requests"], {"rate_scale": 1.0, "seeds": 1, "loads": [1.0]}
        _refuse(args, only_for_families, "--workload")
        if args.trace_format is None:
            raise InputError(f"--trace needs --trace-format: {', '.join(formats())}")
    else:
        only_for_traces, defaults = ["trace_format", "rate_scale", "limit"], {"seeds": SEEDS, "loads": LOADS}
        _refuse(args, only_for_traces, "--trace")
        defaults["requests"] = REQUESTS
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    check_executor(args)
    check_counts(args, "seeds", *(["requests"] if args.workload else []))
    check_positive(args, "loads")
    slos(args)
    check_families(args.workload or ())
    # Named twice is meant once.
    for name in ("policies", "workload", "loads"):
        if getattr(args, name):
            setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def _refuse(args: Namespace, names: Sequence[str], source: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise InputError(f"{option(name)} goes with {source} only")


def _input_files(args: Namespace) -> list[Path]:
    """Files from outside the project that the numbers depend on: the trace, and the policies' own."""
    return [*([args.trace] if args.trace else []), *policy_files(args.policies)]


def compare(args: Namespace) -> None:
    """Run the comparison that `parse` read, write its folder, and print its main tables."""
    config = cluster(args, args.cluster)
    tuned = Tuned.read(args.tuned) if args.tuned else None
    if tuned is not None:
        tuned.check(config, slos(args))
    names = tuned.replace(args.policies) if tuned is not None else args.policies
    for policy in names:
        policies.make(policy)
    labels = [policies.label(policy) for policy in names]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"two policies are called {twice[0]} in tables; give one of them a LABEL=")
    asked = slos(args)
    if args.trace:
        trace = partial(read_trace, args.trace, args.trace_format, limit=args.limit, slos=asked)
        whole = trace(rate_scale=args.rate_scale)  # what is wrong with it is told before anything is written

    command = {name: value for name, value in vars(args).items() if name not in ("out", "jobs", "executor", "line")}
    identity = json.dumps(command, default=str)
    folder = args.out or Path("runs") / f"compare-{digest(identity)}"
    kept = folder / "cells"
    fingerprint = digest(identity, config_digest(config), simulation_digest(), files=_input_files(args))
    workers = {"jobs": args.jobs, "executor": args.executor}
    claim(folder, command)

    if args.trace:
        workloads = [args.trace.name.partition(".")[0]]
        of_each = {workloads[0]: slos_of_format(args.trace_format, asked)}
        ttft_slo_s = {workloads[0]: float(whole.ttft_slo_s[0])} if np.ptp(whole.ttft_slo_s) == 0 else {}
        load_is = f"load (multiple of rate scale {args.rate_scale:g})"
        loads_are = load_is

        def workload_of(name: str, load: float, seed: int) -> Workload:  # noqa: ARG001 - there is one trace
            return trace(rate_scale=args.rate_scale * load, seed=seed)
    else:
        workloads = args.workload
        of_each = {name: slos_of_family(name, asked) for name in workloads}
        ttft_slo_s = {name: flat_s for name, one in of_each.items() if (flat_s := one.flat_ttft_s) is not None}
        at_rate = {name: partial(generate, name, requests=args.requests, slos=asked) for name in workloads}
        knee_rps = knees(at_rate, config, kept, fingerprint=fingerprint, **workers)
        load_is = "load (multiple of the knee of static)"
        loads_are = (
            f"{load_is}, the highest rate at which static meets the SLOs of {TARGET:.0%} of the requests: "
            + ", ".join(f"{name} {rate:.2f} requests/s" for name, rate in knee_rps.items())
        )

        def workload_of(name: str, load: float, seed: int) -> Workload:
            return at_rate[name](rate_rps=load * knee_rps[name], seed=seed)

    keys = product(workloads, args.loads, range(args.seeds), names)
    cells = [Cell(policy, workload, load, seed) for workload, load, seed, policy in keys]
    outcomes = run_cells(cells, workload_of, config, kept, fingerprint=fingerprint, **workers)
    about = [
        f"cluster {config.shape} of {config.profile.name}; step budget {config.step_budget}",
        f"node reports {args.report_age_ms:g} ms old",
        slos_line(of_each, native=args.trace_format == "native"),
        f"the first {WARMUP_SHARE:.0%} of the span of arrivals is warm-up and left out; a run ends at the latest "
        f"{DRAIN_S:g} s after its last arrival",
        loads_are,
        *([tuned.about()] if tuned is not None else []),
    ]
    made = made_by(f"python -m experiments.compare {args.line}", config.profile, f"0 to {args.seeds - 1}")
    print(write_all(outcomes, "Placement policies compared", about, ttft_slo_s, load_is, folder, made_by=made))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, cells.csv, requests.csv.gz")


if __name__ == "__main__":
    run_main(lambda: compare(parse()))
