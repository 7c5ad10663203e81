"""Place requests on a real serving stack: NVIDIA Dynamo with mock engines, in real time, next to the simulation.

Starts one mock worker per node on this machine, with the step times of a hardware profile. Sends it a workload in real
time through our router, with each policy in turn, and simulates the same requests. Needs `pip install -e '.[live]'`.

Writes into --out the files of `experiments.compare`; live runs have the names of the policies, simulated ones
"simulated-" in front. summary.md and report.html begin with the two next to each other. Finished runs are kept in
runs/: the same command resumes, and with another policy or seed it runs only what is new.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import get_args

from experiments.analysis.live_agreement import agreements
from experiments.mock_stack.mock_workers import Timing
from experiments.options.execution_options import ExecutionOptions, check_policies
from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from experiments.options.request_options import check_families, plan_families
from experiments.options.slo_options import SloOptions
from experiments.options.worker_options import WorkerOptions
from experiments.reports.columns import table
from experiments.reports.comparison_report import write_comparison
from experiments.reports.document import claim, for_console, made_by
from experiments.reports.formatting import slos_line
from experiments.reports.live_report import COLUMNS, agreement_sections, order_text
from experiments.runs.trial import MEASURED, run_trials
from experiments.serving.live_trial import LiveTrial, SimulatedTrial
from hardware_profiles import InputError
from policies import PolicySpec

NEEDED_FOR_TABLES = (
    "--timing aisimulate: aisimulate is not installed; pip install --no-deps aisimulate==0.13.0.dev202610130000000070 "
    "&& pip install ijson pandas psutil pyarrow"
)
NEEDED = "ai-dynamo-runtime is not installed; pip install -e '.[live]'"

_TIMINGS: dict[Timing, str] = {
    "profile": "the step law of a mock engine, fitted to the profile, live and simulated",
    "aisimulate": "step times of AISimulate's tables live, and of the profile in simulation",
}


@dataclass(frozen=True, kw_only=True)
class LiveOptions(CommandOptions):
    """Options of `experiments.live`."""

    policies: tuple[str, ...] = option(metavar="P", help="rules, module:Class, or trained policies' files")
    workload: tuple[str, ...] = option(metavar="W", help="families")
    rate: tuple[float, ...] = option(metavar="R", help="requests per second: one for all families, or one for each")
    machines: WorkerOptions
    requests: int = option(300, metavar="N", help="requests per run")
    seeds: int = option(2, metavar="N", help="number of seeds")
    first_seed: int = option(0, metavar="K", help="the first of them")
    timing: Timing = option(
        "profile",
        choices=get_args(Timing),
        help="source of the step times: a law fitted to the profile, live and simulated; or AISimulate's tables "
        "live, and the profile itself in simulation",
    )
    speedup: float = option(1.0, metavar="X", help="seconds of the workload that pass in a real one")
    slos: SloOptions
    execution: ExecutionOptions

    def __post_init__(self) -> None:
        check_counts(self, "requests", "seeds")
        check_positive(self, "rate", "speedup")
        check_families(self.workload)
        if self.first_seed < 0:
            raise InputError(f"--first-seed {self.first_seed}: must be 0 or more")
        if len(self.rate) not in (1, len(self.workload)):
            raise InputError(f"--rate: {len(self.rate)} rates for {len(self.workload)} families; give one, or one each")
        if self.execution.jobs not in (None, 1) or self.execution.executor != "local":
            raise InputError("--jobs and --executor: runs in real time go one after the other on this machine")


def run(options: LiveOptions) -> None:
    """Play, simulate, write the folder, and print its tables. Raises InputError (Dynamo is not installed)."""
    if find_spec("dynamo") is None:
        raise InputError(NEEDED)
    if options.timing == "aisimulate" and find_spec("aisimulate_core") is None:
        raise InputError(NEEDED_FOR_TABLES)
    config = options.machines.config(fitted=options.timing == "profile")
    slos = options.slos.slos()
    specs = [PolicySpec.parse(name) for name in options.policies]
    simulated_specs = [replace(spec, alias=f"simulated-{spec.label}") for spec in specs]
    check_policies([*specs, *simulated_specs])
    folder = options.execution.folder("live", options)
    claim(folder, "live", options)
    cache = options.execution.cache(folder, jobs=1)
    rates = dict(zip(options.workload, options.rate * len(options.workload), strict=False))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    loads_are = "rate, requests per second: " + ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    plan = plan_families(rates, slos, (1.0,), seeds, options.requests, loads_are)
    simulated = run_trials(
        [SimulatedTrial(one, *key, config) for key in plan.recipes for one in simulated_specs], cache
    )
    live = run_trials(
        [
            LiveTrial(one, *key, config, timing=options.timing, speedup=options.speedup)
            for key in plan.recipes
            for one in specs
        ],
        cache,
    )
    found = agreements(live, simulated)
    write_comparison(
        [*live, *simulated],
        "Policies on live workers",
        [
            f"mock workers of NVIDIA Dynamo, {config.shape}, {config.profile.name}: {_TIMINGS[options.timing]}",
            f"token budget {config.token_budget:,}; no chunk plans",
            *([f"{options.speedup:g} seconds pass in a real one"] if options.speedup != 1 else []),
            slos_line(plan.slos),
            MEASURED,
            plan.loads_are,
        ],
        {name: slo_s for name, one in plan.slos.items() if (slo_s := one.flat_ttft_s) is not None},
        plan.load_is,
        folder,
        made_by=made_by(options.typed, config.profile, f"{seeds[0]} to {seeds[-1]}"),
        first=agreement_sections(found, live, simulated),
    )
    print(for_console(f"live / simulated\n{table(COLUMNS, found)}", order_text(found)))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, cells.csv, requests.csv.gz")


if __name__ == "__main__":
    command(LiveOptions, run, "live", __doc__)
