"""Watch queues, nodes and links over time, and how early alarms on them warn of broken TTFT.

Writes into --out: queue.csv.gz (one row per sample and node of the first seed's runs), leads.csv (one row per run,
break and alarm), summary.md (the table of early warnings), figures/*.png (one node timeline per run of the first seed,
and when alarms fired around breaks), and report.html. Alarms are calibrated on a separate set of seeds. A trace is one
run: it is watched, and there is nothing to calibrate alarms on. Finished runs are kept in runs/, so the same command
resumes.
"""

from dataclasses import dataclass

from experiments.options.cluster_options import ClusterOptions
from experiments.options.execution_options import ExecutionOptions, check_policies
from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from experiments.options.request_options import RequestOptions, plan_at_knees, plan_families, plan_trace
from experiments.options.slo_options import SloOptions
from experiments.reports import watch_report
from experiments.reports.document import claim, made_by
from experiments.reports.formatting import slos_line
from experiments.runs.data_splits import ALARM_SEED
from experiments.runs.saturation import intervals, knees
from experiments.runs.trial import Trial
from experiments.runs.watched_run import run_watched
from hardware_profiles import InputError
from policies import PolicySpec

WORKLOADS = ("spike", "burst")
LOADS = (0.95, 1.05)
REQUESTS = 3000


@dataclass(frozen=True, kw_only=True)
class WatchOptions(CommandOptions):
    """Options of `experiments.watch`."""

    policies: tuple[str, ...] = option(("static", "kairos"), metavar="P", help="as in experiments.compare")
    requests: RequestOptions
    loads: tuple[float, ...] = option(
        (),
        metavar="L",
        help=f"multiples of the knee of static (default {' '.join(f'{load:g}' for load in LOADS)}); of a trace's "
        "--rate-scale (default 1)",
    )
    rates: tuple[float, ...] = option((), metavar="R", help="of a family, requests per second, instead of loads")
    cluster: str = option("2P2D", metavar="NPMD", help="prefill and decode nodes")
    machines: ClusterOptions
    slos: SloOptions
    interval: float = option(0.25, metavar="S", help="seconds between samples")
    seeds: int = option(40, metavar="N", help="runs that alarms are judged on")
    validation_seeds: int = option(40, metavar="N", help="runs that they are calibrated on")
    false_alarms: float = option(6.0, metavar="X", help="false alarms per hour, of each alarm, in calibration")
    execution: ExecutionOptions

    def __post_init__(self) -> None:
        check_counts(self, "seeds", "validation_seeds")
        check_positive(self, "interval", "false_alarms", "loads", "rates")
        if self.rates and self.loads:
            raise InputError("--loads and --rates go one without the other")
        if self.rates and self.requests.trace is not None:
            raise InputError("--rates goes with --workload only; a trace has --loads, multiples of its rate")


def run(options: WatchOptions) -> None:
    """Watch the runs, write the folder, and print the main table."""
    config = options.machines.config(options.cluster)
    specs = [PolicySpec.parse(name) for name in options.policies]
    check_policies(specs)
    slos = options.slos.slos()
    trace = options.requests.read_trace(slos, config.profile)
    folder = options.execution.folder("watch", options)
    cache = options.execution.cache(folder)
    claim(folder, "watch", options)

    judged, calibrated = list(range(options.seeds)), [ALARM_SEED + i for i in range(options.validation_seeds)]
    used = f"{judged[0]} to {judged[-1]}; alarms calibrated on {calibrated[0]} to {calibrated[-1]}"
    leads = "leads.csv, "
    names, count = options.requests.workload or WORKLOADS, options.requests.requests or REQUESTS
    if trace is not None:
        judged, used, leads = [0], "none", ""
        plan = plan_trace(trace, options.loads or (1.0,), judged)
    elif options.rates:
        load_is = "load (the rate, requests per second)"
        one = dict.fromkeys(names, 1.0)
        plan = plan_families(one, slos, options.rates, [*judged, *calibrated], count, load_is)
    else:
        found = intervals(knees(names, slos, config, cache))
        plan = plan_at_knees(found, slos, options.loads or LOADS, [*judged, *calibrated], count)
    trials = [Trial(spec, *key, config, keep_requests=False) for key in plan.recipes for spec in specs]
    watched = run_watched(trials, options.interval, judged, options.false_alarms, cache)
    about = [
        *options.machines.about(config.shape),
        slos_line(plan.slos, native=options.requests.trace_format == "native"),
        plan.loads_are,
    ]
    definitions = watch_report.definitions(options.interval, options.validation_seeds, options.false_alarms)
    made = made_by(options.typed, config.profile, used)
    print(watch_report.write_watch(watched, about, definitions, folder, made_by=made))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, queue.csv.gz, {leads}runs/")


if __name__ == "__main__":
    command(WatchOptions, run, "watch", __doc__)
