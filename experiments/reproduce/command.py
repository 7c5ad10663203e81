"""`python -m experiments.reproduce`: the claims of arXiv 2607.02043 beside what this project finds.

The workload families on 2P2D for each profile and link, at loads relative to the knee of `static` there; starved shapes
and a slower decode node; loads well below and above the knee; and `kairos` taken apart. SLOs, families and baselines
are this project's choices: the paper's are not public.

Writes into --out: claims.csv, cells.csv (a row a cell), figures/*.png, summary.md, and report.html, both of these on
one page. Finished cells are kept in cells/; the same command again, or one that asks for more, takes up where it
stopped. The default sizes take about a quarter of an hour on two cores.
"""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import policies
from envs.objective import TUNING_OBJECTIVE
from envs.workload import Workload
from experiments.arguments import (
    SLO_ARGUMENTS,
    add_executor,
    add_slos,
    check_counts,
    check_executor,
    check_families,
    check_positive,
    slos,
)
from experiments.cells import Cell, Outcome, run_cells
from experiments.digests import config_digest, digest, policy_files, simulation_digest
from experiments.estimates import Runs
from experiments.groups import BASE, grouped
from experiments.knee import AtRate, Search, family_at_rate, search_all
from experiments.output import claim
from experiments.reproduce import report as reproduce_report
from experiments.reproduce.ablations import variants
from experiments.reproduce.evidence import BURSTY, KAIROS, Evidence, Place, shown_load
from experiments.reproduce.settings import Setting, every_machine, stressed
from experiments.sources import TUNING_SEEDS
from experiments.tuning import tuned
from hardware_profiles.cli import Parser
from hardware_profiles.files import replacing

PROFILES = ("a100-deepseek-v2-lite", "a100-deepseek-v2-lite-paper", "a100-qwen3-8b")
CONNECTORS = ("rdma", "small-descriptors")
FAMILIES = ("LPLD", "LPHD", "HPLD", "HPHD", "burst", "spike")
POLICIES = ("static", "round-robin", "splitwise", "mooncake", "always-local", "kairos", "shortest-ttft")
LOADS = (0.5, 0.7, 0.95, 1.2)
SWEEP = (0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2, 1.5, 2.0)
REQUESTS = 1000
SPAN_S = 20.0
SEEDS = 10
TUNING_LOAD = 0.95


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or a name that stands for nothing.
    """
    parser = Parser(prog="python -m experiments.reproduce", description="The claims of arXiv 2607.02043 beside ours.")
    add = parser.add_argument
    known = [name for name in POLICIES if name in policies.names()]
    add("--out", type=Path, required=True, metavar="DIR", help="where to write")
    add("--profiles", nargs="+", default=list(PROFILES), metavar="P", help=f"default: {' '.join(PROFILES)}")
    add("--connectors", nargs="+", default=list(CONNECTORS), metavar="C", help=f"default: {' '.join(CONNECTORS)}")
    add("--families", nargs="+", default=list(FAMILIES), metavar="W", help=f"default: {' '.join(FAMILIES)}")
    add(
        "--policies",
        nargs="+",
        default=known,
        metavar="P",
        help=f"beside static and kairos (default: {' '.join(known)})",
    )
    loads = " ".join(f"{load:g}" for load in LOADS)
    add(
        "--loads",
        type=float,
        nargs="+",
        default=list(LOADS),
        metavar="L",
        help=f"of the knee of static (default {loads})",
    )
    add("--requests", type=int, default=REQUESTS, metavar="N", help="requests a run, at least (default %(default)s)")
    add("--span", type=float, default=SPAN_S, metavar="S", help="seconds of arrivals, at least (default %(default)g)")
    add("--seeds", type=int, default=SEEDS, metavar="N", help="seeds 0 to N - 1 (default %(default)s)")
    add_slos(parser)
    add_executor(parser)
    args = parser.parse_args(argv)
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    check_counts(args, "requests", "seeds")
    check_executor(args)
    check_positive(args, "loads", "span")
    slos(args)
    check_families(args.families)
    args.policies = [BASE, *args.policies, KAIROS]
    for name in ("profiles", "connectors", "families", "policies", "loads"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    for policy in args.policies:
        policies.make(policy)
    for setting in every_machine(args.profiles, args.connectors):
        setting.check()
    return args


def _shared(args: Namespace) -> dict[str, object]:
    """What all cells in a folder have in common."""
    return {name: getattr(args, name) for name in ("requests", "span", *SLO_ARGUMENTS)}


class _Runs:
    """Runs what is asked for and keeps it.

    Args:
        args: the command.
        folder: where finished cells are kept.
    """

    def __init__(self, args: Namespace, folder: Path) -> None:
        self._args = args
        self._kept = folder / "cells"
        files = policy_files(args.policies)
        self._fingerprint = digest(repr(_shared(args)), simulation_digest(), files=files)
        self._workers = {"jobs": args.jobs, "executor": args.executor}

    def at_rate(self, family: str) -> AtRate:
        """The requests of a family."""
        args = self._args
        return family_at_rate(family, args.requests, span_s=args.span, slos=slos(args))

    def knees(self, wanted: Iterable[tuple[Setting, str]]) -> dict[tuple[Setting, str], float]:
        """The knee of static of each setting and family, requests per second; 0 where it has none."""
        searches = {
            (setting, family): Search(BASE, family, self.at_rate(family), setting.config) for setting, family in wanted
        }
        found = search_all(searches.values(), self._kept, fingerprint=self._fingerprint, **self._workers)
        return {key: found[search].rate_rps for key, search in searches.items()}

    def tuned(self, setting: Setting, knee_rps: dict[str, float]) -> str:
        """The knobs of kairos that are best over the families, on requests of their own."""
        key = digest(config_digest(setting.config), repr((knee_rps, TUNING_LOAD)), self._fingerprint)
        note = self._kept / f"tuned-{key}.json"
        if not note.exists():
            workloads = [
                self.at_rate(family)(rate_rps=TUNING_LOAD * rate_rps, seed=TUNING_SEEDS[0])
                for family, rate_rps in knee_rps.items()
            ]
            print(f"tuning on {setting}", file=sys.stderr)
            name, _ = tuned(
                KAIROS,
                [(workload, setting.config) for workload in workloads],
                objective=TUNING_OBJECTIVE,
                jobs=self._args.jobs,
            )
            with replacing(note) as path:
                path.write_text(json.dumps(f"kairos-tuned={name}"))
        return str(json.loads(note.read_text()))

    def cells(
        self, setting: Setting, wanted: Iterable[tuple[str, str, float]], knee_rps: dict[str, float]
    ) -> list[Outcome]:
        """The cells of one setting: (policy, family, load) with every seed.

        Args:
            setting: the cluster.
            wanted: what to run; the same thing twice is run once.
            knee_rps: by family.
        """

        def workload_of(family: str, load: float, seed: int) -> Workload:
            return self.at_rate(family)(rate_rps=load * knee_rps[family], seed=seed)

        seeds = range(self._args.seeds)
        cells = [Cell(policy, family, load, seed) for policy, family, load in dict.fromkeys(wanted) for seed in seeds]
        cells.sort(key=lambda cell: cell[1:])  # stable: who shares requests stands together
        return run_cells(
            cells,
            workload_of,
            setting.config,
            self._kept,
            fingerprint=digest(self._fingerprint, config_digest(setting.config)),
            requests=False,
            **self._workers,
        )


def gather(args: Namespace, folder: Path) -> Evidence:
    """Run everything that `folder` does not hold yet."""
    runs = _Runs(args, folder)
    machines = every_machine(args.profiles, args.connectors)
    stress = stressed(every_machine(args.profiles, args.connectors[:1]))
    ablated = every_machine(args.profiles, args.connectors[:1])
    knees = runs.knees([*product(machines, args.families), *product(stress, [BURSTY]), *product(machines, [BURSTY])])

    def known(setting: Setting, named: Sequence[str]) -> dict[str, float]:
        return {family: rate for family in named if (rate := knees.get((setting, family), 0.0)) > 0}

    tuned = {setting: runs.tuned(setting, of_it) for setting in machines if (of_it := known(setting, args.families))}
    shown = shown_load(args.loads)
    groups: dict[Place, dict[str, Runs]] = {}

    def add(setting: Setting, wanted: list[tuple[str, str, float]], knee_rps: dict[str, float]) -> None:
        for (family, load), group in grouped(runs.cells(setting, wanted, knee_rps)).items():
            groups.setdefault(Place(setting, family, load), {}).update(group)

    for setting in [one for one in [*machines, *stress] if one.plain in tuned]:
        named = args.families if setting in machines else [BURSTY]
        knee_rps = known(setting, [*named, BURSTY])
        rules = [*args.policies, tuned[setting.plain]]
        loads = args.loads if setting in machines else [shown, max(args.loads)]
        wanted = list(product(rules, [name for name in named if name in knee_rps], loads))
        if setting in machines and BURSTY in knee_rps:
            wanted += product([BASE, KAIROS, tuned[setting]], [BURSTY], SWEEP)
        if setting in ablated and BURSTY in knee_rps:
            wanted += [(one.policy, BURSTY, shown) for one in variants() if one.age_ms is None]
        add(setting, wanted, knee_rps)
    for setting in [one for one in ablated if one in tuned]:
        knee_rps = known(setting, [BURSTY])
        for one in variants():
            if one.age_ms is not None and knee_rps:
                add(one.at(Place(setting, BURSTY, shown)).setting, [(one.policy, BURSTY, shown)], knee_rps)
    return Evidence(groups, tuple(args.policies), tuned, knees, tuple(args.loads), args.seeds)


def reproduce(args: Namespace) -> None:
    """Do what `parse` read, write its folder, and print the table of claims."""
    claim(args.out, _shared(args))
    evidence = gather(args, args.out)
    print(reproduce_report.write(evidence, args, args.out))
    print(f"\nwritten to {args.out}: claims.csv, cells.csv, summary.md, figures/")
