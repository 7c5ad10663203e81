"""`python -m experiments.watch`: queues, nodes and links over time, and how early alarms on them warn of broken TTFT.

Writes into --out: queue.csv.gz (a row a sample and node of the first seed's runs), leads.csv (a row a run, break and
alarm), summary.md (the early-warning table) and figures/*.png (a node timeline for each of those runs, and when alarms
fired around breaks). Alarms are calibrated on seeds of their own. A trace has one run: it is watched, and there is
nothing to calibrate alarms on.
"""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import policies
from agents.processes import finished
from envs.cluster import ClusterConfig
from envs.generators import families, slos_of_family
from envs.traces import formats, read_trace, slos_of_format
from envs.workload import Workload
from experiments.arguments import add_cluster, add_slos, check_counts, check_families, check_positive, cluster, slos
from experiments.cells import Cell
from experiments.digests import config_digest, digest, simulation_digest
from experiments.knee import TARGET, family_at_rate, knees
from experiments.output import claim
from experiments.printed import slos_line
from experiments.provenance import made_by
from experiments.watch import report as watch_report
from experiments.watch.runs import Seen, Task, judge_alarms, see
from hardware_profiles import InputError
from hardware_profiles.cli import Parser

POLICIES = ["static", "kairos"]
WORKLOADS = ["spike", "burst"]
LOADS = [0.95, 1.05]
SEEDS = 40
REQUESTS = 3000
INTERVAL_S = 0.25
FALSE_PER_H = 6.0
# Not among those that knees, tuning and capacity use, nor those that are evaluated, which count from 0.
FIRST_VALIDATION_SEED = 970_000


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or an option that has no meaning with the others.
    """
    parser = Parser(prog="python -m experiments.watch", description="Watch queues, nodes and links; raise alarms.")
    add = parser.add_argument
    add("--policies", nargs="+", default=POLICIES, metavar="P", help=f"default: {' '.join(POLICIES)}")
    source = parser.add_mutually_exclusive_group()
    names = ", ".join(families())
    source.add_argument("--workload", nargs="+", metavar="W", help=f"{names} (default {' '.join(WORKLOADS)})")
    source.add_argument("--trace", type=Path, metavar="FILE", help="a recorded workload, watched once")
    add("--trace-format", choices=formats(), metavar="F", help=f"{', '.join(formats())}; needed with --trace")
    add("--limit", type=int, metavar="N", help="only the trace's first N requests")
    pace = parser.add_mutually_exclusive_group()
    default = " ".join(f"{load:g}" for load in LOADS)
    loads_are = f"multiples of the knee of static (default {default}); of a trace's own rate (default 1)"
    pace.add_argument("--loads", type=float, nargs="+", metavar="L", help=loads_are)
    pace.add_argument("--rates", type=float, nargs="+", metavar="R", help="of a family, requests/s, in place of loads")
    add("--requests", type=int, default=REQUESTS, metavar="N", help="requests a run of a family (default %(default)s)")
    add("--cluster", default="2P2D", metavar="NPMD", help="prefill and decode nodes (default %(default)s)")
    add_cluster(parser)
    add_slos(parser)
    add("--interval", type=float, default=INTERVAL_S, metavar="S", help="seconds between samples (default %(default)g)")
    add("--seeds", type=int, default=SEEDS, metavar="N", help="runs that alarms are judged on (default %(default)s)")
    add("--validation-seeds", type=int, default=SEEDS, metavar="N", help="and calibrated on (default %(default)s)")
    add("--false-alarms", type=float, default=FALSE_PER_H, metavar="X", help="an hour, of each (default %(default)g)")
    add("--out", type=Path, metavar="DIR", help="default: runs/watch-, and a digest of the command")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    args = parser.parse_args(argv)
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    _check(args)
    return args


def _check(args: Namespace) -> None:
    check_counts(args, "requests", "seeds", "validation_seeds", "jobs")
    check_positive(args, "interval", "false_alarms")
    slos(args)
    if args.trace:
        if args.trace_format is None:
            raise InputError(f"--trace needs --trace-format: {', '.join(formats())}")
        if args.rates is not None:
            raise InputError("--rates goes with --workload only; a trace has --loads, multiples of its own rate")
        args.loads = args.loads or [1.0]
    else:
        for option in ("trace_format", "limit"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option.replace('_', '-')} goes with --trace only")
        args.workload = args.workload or WORKLOADS
        check_families(args.workload)
        args.loads = args.loads or LOADS
    check_positive(args, "rates" if args.rates else "loads")
    for several in ("policies", "workload", "loads", "rates"):
        if getattr(args, several):
            setattr(args, several, list(dict.fromkeys(getattr(args, several))))
    for policy in args.policies:
        policies.make(policy)


class _Source(NamedTuple):
    """Where requests come from, and for which runs.

    Attributes:
        names: of the workloads.
        loads: of each.
        evaluation: seeds that are judged; the first one's samples are kept.
        validation: seeds that alarms are calibrated on.
        workload_of: the requests of a (workload, load, seed).
        load_is: what a load is.
    """

    names: list[str]
    loads: list[float]
    evaluation: list[int]
    validation: list[int]
    workload_of: Callable[[str, float, int], Workload]
    load_is: str


def _trace(args: Namespace) -> _Source:
    read = partial(read_trace, args.trace, args.trace_format, limit=args.limit, slos=slos(args))
    read()  # what is wrong with it is told before anything is written
    name = args.trace.name.partition(".")[0]
    load_is = "load is a multiple of the trace's own rate"
    return _Source([name], args.loads, [0], [], lambda _name, load, _seed: read(rate_scale=load), load_is)


def _families(args: Namespace, config: ClusterConfig, folder: Path, fingerprint: str) -> _Source:
    at_rate = {name: family_at_rate(name, args.requests, slos=slos(args)) for name in args.workload}
    if args.rates:
        unit_rps, load_is = dict.fromkeys(args.workload, 1.0), "load is the rate, requests/s"
    else:
        unit_rps = knees(at_rate, config, folder / "cells", fingerprint=fingerprint, jobs=args.jobs)
        found = ", ".join(f"{name} {rate:.2f} requests/s" for name, rate in unit_rps.items())
        load_is = f"load is a multiple of the knee of static ({TARGET:.0%} of the requests meet their SLOs): {found}"
    return _Source(
        args.workload,
        args.rates or args.loads,
        list(range(args.seeds)),
        [FIRST_VALIDATION_SEED + i for i in range(args.validation_seeds)],
        lambda name, load, seed: at_rate[name](rate_rps=load * unit_rps[name], seed=seed),
        load_is,
    )


def watch(args: Namespace) -> None:
    """Do what `parse` read, write its folder, and print its table."""
    config = cluster(args, args.cluster)
    command = {name: value for name, value in vars(args).items() if name not in ("out", "jobs", "line")}
    folder = args.out or Path("runs") / f"watch-{digest(repr(command))}"
    traced = _trace(args) if args.trace else None
    claim(folder, command)
    fingerprint = digest(repr(command), config_digest(config), simulation_digest())
    source = traced or _families(args, config, folder, fingerprint)
    keys = product(source.names, source.loads, [*source.evaluation, *source.validation], args.policies)
    cells = [Cell(policy, name, load, seed) for name, load, seed, policy in keys]
    seen = _see_all(cells, source.workload_of, config, args.interval, args.jobs)
    evaluation, validation = source.evaluation, source.validation
    settings = judge_alarms(seen, validation, evaluation, args.false_alarms) if validation else {}
    seeds = "none"
    if validation:
        seeds = f"{evaluation[0]} to {evaluation[-1]}; alarms calibrated on {validation[0]} to {validation[-1]}"
    about = [
        *made_by(f"python -m experiments.watch {args.line}", config.profile, seeds),
        f"cluster {config.shape}; node reports {args.report_age_ms:g} ms old; {source.load_is}",
        slos_line(
            {name: slos_of_family(name, slos(args)) for name in source.names}
            if traced is None
            else dict.fromkeys(source.names, slos_of_format(args.trace_format, slos(args))),
            native=args.trace_format == "native",
        ),
    ]
    definitions = watch_report.definitions(args.interval, args.validation_seeds, args.false_alarms)
    print(watch_report.write(seen, settings, definitions, about, folder))
    print(f"\nwritten to {folder}: queue.csv.gz, {'leads.csv, ' if settings else ''}report.html, summary.md, figures/")


def _see_all(
    cells: Sequence[Cell],
    workload_of: Callable[[str, float, int], Workload],
    config: ClusterConfig,
    interval_s: float,
    jobs: int,
) -> dict[Cell, Seen]:
    """Watch every cell, keeping the samples of those of the first seed; progress goes to stderr."""

    def tasks() -> Iterator[Task]:
        made, workload = None, None
        for cell in cells:
            if workload is None or made != cell[1:]:  # policies of one (workload, load, seed) follow each other
                made, workload = cell[1:], workload_of(*cell[1:])
            yield Task(cell, workload, config, interval_s, cell.seed == cells[0].seed)

    seen: dict[Cell, Seen] = {}
    for done, (task, one) in enumerate(finished(see, tasks(), jobs), start=1):
        seen[task.cell] = one
        policy, workload, load, seed = task.cell
        print(f"[{done}/{len(cells)}] {policy} {workload} load {load:g} seed {seed}", file=sys.stderr)
    return {cell: seen[cell] for cell in cells}
