"""Compare policies on the same requests.

Writes into --out: cells.csv (one row per policy, workload, load and seed), requests.csv.gz (one row per request),
summary.md (tables with intervals), figures/*.png, and report.html, a self-contained page with both. Finished runs are
kept in runs/: the same command resumes, and with another policy, seed or load it runs only what is new.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import policies
from experiments.options.execution_options import RunOptions, check_policies
from experiments.options.parser import check_counts, check_positive, command, option
from experiments.options.request_options import (
    KNEES,
    PARTS,
    RequestOptions,
    TracePart,
    plan_at_knees,
    plan_trace,
    plan_trace_part,
)
from experiments.reports.comparison_report import write_comparison
from experiments.reports.document import claim, made_by
from experiments.reports.formatting import slos_line
from experiments.runs.known_knees import read_knees
from experiments.runs.saturation import intervals, knees, trace_knee, write_knees
from experiments.runs.trial import MEASURED, Trial, run_trials
from experiments.runs.tuning import TunedSettings
from hardware_profiles import InputError
from policies import PolicySpec

LOADS = (0.5, 0.7, 0.85, 0.95, 1.05)
SEEDS = 20
REQUESTS = 3000
_RULES = ", ".join(PolicySpec.parse(name).label for name in [*policies.names(), *policies.bounds()])


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RunOptions):
    """Options of `experiments.compare`."""

    policies: tuple[str, ...] = option(
        metavar="P", help=f"{_RULES}; module:Class; or a trained policy's file; LABEL= in front names it in tables"
    )
    tuned: Path | None = option(
        None,
        metavar="FILE",
        help="tuned.json: policies named without knobs get theirs from it, from the set for the same cluster, step "
        "budget and SLOs; shipped: sets that come with the project",
    )
    requests: RequestOptions
    cluster: str = option("2P2D", metavar="NPMD", help="prefill and decode nodes")
    seeds: int | None = option(None, metavar="N", help=f"number of seeds (default {SEEDS}; 1 for a trace)")
    first_seed: int = option(0, metavar="K", help="the first of them")
    knees: Path | None = option(None, metavar="FILE", help=KNEES)
    trace_part: TracePart | None = option(
        None,
        choices=get_args(TracePart),
        help=f"only a part of the trace's span (tuning: the {PARTS['tuning']}; test: the {PARTS['test']}); loads are "
        "then multiples of the knee of static on the tuning part",
    )
    loads: tuple[float, ...] = option(
        (),
        metavar="L",
        help=f"multiples of the knee of static (default {' '.join(f'{load:g}' for load in LOADS)}); of a whole trace's "
        "--rate-scale (default 1)",
    )

    def __post_init__(self) -> None:
        if not self.requests.workload and self.requests.trace is None:
            raise InputError("give --workload or --trace")
        if self.trace_part is not None and self.requests.trace is None:
            raise InputError("--trace-part goes with --trace only")
        if self.trace_part is not None and (self.seeds or self.first_seed):
            raise InputError("--seeds and --first-seed: a part of a trace is one set of requests")
        if self.knees is not None and self.requests.trace is not None:
            raise InputError("--knees goes with --workload only; a load of a trace is a multiple of --rate-scale")
        check_counts(self, "seeds")
        check_positive(self, "loads")
        if self.first_seed < 0:
            raise InputError(f"--first-seed {self.first_seed}: must be 0 or more")


def run(options: CompareOptions) -> None:
    """Run the comparison, write its folder, and print its main tables."""
    config = options.machines.config(options.cluster)
    slos = options.slos.slos()
    specs = [PolicySpec.parse(name) for name in options.policies]
    tuned = None if options.tuned is None else TunedSettings.read_for(options.tuned, config, slos)
    if tuned is not None:
        specs = [tuned.of(spec) for spec in specs]
    check_policies(specs)
    trace = options.requests.read_trace(slos, config.profile)
    known = {} if options.knees is None else read_knees(options.knees, options.requests.workload, config, slos)
    folder = options.execution.folder("compare", options)
    cache = options.execution.cache(folder)
    loads = options.loads or ((1.0,) if trace and not options.trace_part else LOADS)
    seeds = range(options.first_seed, options.first_seed + (options.seeds or (1 if trace else SEEDS)))
    count = options.requests.requests or REQUESTS
    resolved = {"policies": [str(spec) for spec in specs], "requests": count, "loads": loads, "seeds": list(seeds)}
    claim(folder, "compare", options, **resolved, tuning=tuned.budget if tuned else None)
    if trace is not None:
        part = options.trace_part
        if part is None:
            plan = plan_trace(trace, loads, seeds)
        else:
            plan = plan_trace_part(trace, part, trace_knee(trace, config, cache), loads)
        flat = {trace.name: trace.flat_ttft_s}
    else:
        found = known or intervals(knees(options.requests.workload, slos, config, cache))
        write_knees(found, config, folder / "knees.json")
        plan = plan_at_knees(found, slos, loads, seeds, count)
        flat = {name: one.flat_ttft_s for name, one in plan.slos.items()}
    trials = [Trial(spec, *key, config) for key in plan.recipes for spec in specs]
    text = write_comparison(
        run_trials(trials, cache),
        "Placement policies compared",
        [
            *options.machines.about(config.shape),
            slos_line(plan.slos, native=options.requests.trace_format == "native"),
            MEASURED,
            plan.loads_are,
            *([tuned.about()] if tuned else []),
        ],
        {name: slo_s for name, slo_s in flat.items() if slo_s is not None},
        plan.load_is,
        folder,
        made_by=made_by(options.typed, config.profile, f"{seeds[0]} to {seeds[-1]}"),
    )
    print(f"{plan.loads_are}\n\n{text}")
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, cells.csv, requests.csv.gz")


if __name__ == "__main__":
    command(CompareOptions, run, "compare", __doc__)
