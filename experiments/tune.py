"""`python -m experiments.tune`: tune heuristics' knobs on requests that nothing is evaluated on.

Every policy gets the same budget: as many settings of its knobs (see `knobs`), each run on the same requests, of all
named families at all named loads, drawn from seeds of their own. One setting is chosen for all of them: that with the
least cost, the cost that learned policies minimise, among those whose SLO attainment is within a point of the best.

Writes tuned.json into --out, which `experiments.compare --tuned` reads. Finished runs are kept in cells/ as it goes;
the same command again, or one with more policies or settings, takes up where it stopped.
"""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import policies
from envs.cluster import ClusterConfig, parse_shape
from envs.generators import families
from envs.objective import TUNING_OBJECTIVE
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
from experiments.cells import Cell
from experiments.cost import ATTAINMENT_MARGIN, Tried, best
from experiments.digests import config_digest, digest, simulation_digest
from experiments.executors import finished
from experiments.knee import family_at_rate, knees
from experiments.knobs import default, settings
from experiments.markdown import table
from experiments.output import claim, commit
from experiments.sources import TUNING_SEEDS
from experiments.tuned import made_for
from experiments.tuning import SETTINGS, Trial, mean, run_trial, show_progress
from hardware_profiles import InputError
from hardware_profiles.cli import Parser, run_main
from hardware_profiles.files import replacing

LOADS = [0.7, 0.95, 1.05]
REQUESTS = 1000
SEEDS = 2


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or a policy without knobs.
    """
    parser = Parser(prog="python -m experiments.tune", description="Tune policies' knobs on requests of their own.")
    add = parser.add_argument
    known = [name for name in policies.names() if policies.grid(name)]
    add(
        "--policies",
        nargs="+",
        default=known,
        metavar="P",
        help=f"knobs that are named stay as they are (default: {' '.join(known)})",
    )
    add("--workload", nargs="+", default=list(families()), metavar="W", help="families (default: all)")
    shown = " ".join(f"{load:g}" for load in LOADS)
    add("--loads", type=float, nargs="+", default=LOADS, metavar="L", help=f"of the knee of static (default {shown})")
    add("--settings", type=int, default=SETTINGS, metavar="N", help="of each policy at most (default %(default)s)")
    add("--seeds", type=int, default=SEEDS, metavar="N", help=f"from {TUNING_SEEDS[0]} on (default %(default)s)")
    add("--requests", type=int, default=REQUESTS, metavar="N", help="of a run (default %(default)s)")
    add("--cluster", default="2P2D", metavar="NPMD", help="prefill and decode nodes (default %(default)s)")
    add_cluster(parser)
    add_slos(parser)
    add("--out", type=Path, metavar="DIR", help="default: runs/tune-, and a digest of the command")
    add_executor(parser)
    args = parser.parse_args(argv)
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    check_counts(args, "settings", "seeds", "requests")
    check_executor(args)
    check_positive(args, "loads")
    slos(args)
    check_families(args.workload)
    parse_shape(args.cluster)
    for name in ("policies", "workload", "loads"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    for policy in args.policies:
        if policy.partition(":")[0] not in policies.names():
            raise InputError(f"no registered policy {policy!r} to tune; those with knobs are {', '.join(known)}")
        settings(policy, args.settings)
    return args


def tune(args: Namespace) -> None:
    """Do what `parse` read, write tuned.json, and print what was chosen."""
    config = cluster(args, args.cluster)
    apart = ("out", "jobs", "executor", "line", "policies", "settings")
    shared = {name: value for name, value in vars(args).items() if name not in apart}
    identity = json.dumps(shared, default=str)
    folder = args.out or Path("runs") / f"tune-{digest(identity)}"
    claim(folder, shared)
    kept = folder / "cells"
    fingerprint = digest(identity, config_digest(config), simulation_digest())
    workers = {"jobs": args.jobs, "executor": args.executor}

    at_rate = {name: family_at_rate(name, args.requests, slos=slos(args)) for name in args.workload}
    knee_rps = knees(at_rate, config, kept, fingerprint=fingerprint, **workers)
    names = {rule: settings(rule, args.settings) for rule in args.policies}
    seeds = range(TUNING_SEEDS[0], TUNING_SEEDS[0] + args.seeds)
    places = list(product(args.workload, args.loads, seeds))
    cells = [Cell(name, *place) for place in places for several in names.values() for name in several]

    def trials(missing: Iterable[Cell]) -> Iterator[Trial]:
        made = None
        for cell in missing:
            if made != cell[1:]:
                made = cell[1:]
                workload = at_rate[cell.workload](rate_rps=cell.load * knee_rps[cell.workload], seed=cell.seed)
            yield Trial(cell, workload, config, TUNING_OBJECTIVE)

    path = kept / f"tried-{fingerprint}.jsonl"
    found = _read(path)
    with path.open("a") as file:
        missing = [cell for cell in cells if cell not in found]
        for done, (trial, tried) in enumerate(finished(run_trial, trials(missing), **workers), start=1):
            found[trial.cell] = tried
            file.write(json.dumps([trial.cell, tried]) + "\n")
            file.flush()
            show_progress(f"{len(names)} policies", done, len(missing))
    means = {
        rule: {name: mean([found[Cell(name, *place)] for place in places]) for name in several}
        for rule, several in names.items()
    }
    text = json.dumps(_contents(args, config, knee_rps, list(seeds), len(places), means), indent=1)
    with replacing(folder / "tuned.json") as temporary:
        temporary.write_text(text + "\n")
    print(_chosen(means))
    print(f"\nwritten to {folder / 'tuned.json'}")


def _read(path: Path) -> dict[Cell, Tried]:
    """The runs that are there; a last line that was cut off is dropped from the file, too."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with replacing(path) as temporary:
            temporary.write_text(whole)
    return {Cell(*cell): Tried(*tried) for cell, tried in map(json.loads, whole.splitlines())}


def _contents(
    args: Namespace,
    config: ClusterConfig,
    knee_rps: Mapping[str, float],
    seeds: list[int],
    runs: int,
    tried: Mapping[str, Mapping[str, Tried]],
) -> dict[str, object]:
    """What tuned.json holds."""
    return {
        "command": f"python -m experiments.tune {args.line}",
        "commit": commit(),
        **made_for(config, slos(args)),
        "connector": args.connector,
        "cluster_options": args.cluster_option,
        "report_age_ms": args.report_age_ms,
        "budget": {"settings": args.settings, "runs_per_setting": runs, "requests_per_run": args.requests},
        "workloads": args.workload,
        "loads": args.loads,
        "knees_rps": knee_rps,
        "seeds": seeds,
        "criterion": f"least mean cost among settings within {ATTAINMENT_MARGIN:g} of the best mean SLO attainment; "
        f"cost of a request: TTFT / SLO + {TUNING_OBJECTIVE.tail_weight:g} (TTFT / SLO)^2 + TBT excess",
        "policies": {
            rule: {"chosen": best(means), "tried": [{"policy": name, **one._asdict()} for name, one in means.items()]}
            for rule, means in tried.items()
        },
    }


def _chosen(tried: Mapping[str, Mapping[str, Tried]]) -> str:
    """A table of what was chosen, beside the defaults."""
    rows = []
    for rule, means in tried.items():
        chosen, other = best(means), means[default(rule)]
        one = means[chosen]
        met = [f"{100 * share:.2f}" for share in (one.attainment, other.attainment)]
        rows.append([f"`{chosen}`", f"{len(means)}", *met, f"{one.cost:.3f}", f"{other.cost:.3f}"])
    header = ["chosen", "settings tried", "SLO attainment (%)", "of the default (%)", "cost", "of the default"]
    return table(header, rows)


if __name__ == "__main__":
    run_main(lambda: tune(parse()))
