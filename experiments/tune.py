"""Tune the knobs of rules on requests that nothing is evaluated on.

Every rule gets the same budget: as many settings of its knobs (see `runs.search_space`), each run on the same requests
of all named families at all named loads, from separate seeds, or on those of the tuning part of a trace. One setting is
chosen for all of them: the one with the least cost, the cost that learned policies minimise, among those whose SLO
attainment is within a point of the best.

Writes tuned.json into --out, which `experiments.compare --tuned` reads. Finished runs are kept in runs/: the same
command, or one with more policies or settings, resumes.

With --join, writes one tuned.json with the chosen settings of finished folders instead, of which commands use the set
for their cluster, step budget and SLOs. policies/shipped_settings.json is such a file.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from envs.cluster import parse_shape
from envs.generators import families
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.options.cluster_options import ClusterOptions
from experiments.options.execution_options import RunOptions
from experiments.options.parser import check_counts, check_positive, command, option
from experiments.options.request_options import KNEES, RequestOptions
from experiments.options.slo_options import SloOptions
from experiments.reports.columns import Column, code, table
from experiments.reports.document import claim, commit, for_console, write_json
from experiments.runs.data_splits import TUNING_SEEDS
from experiments.runs.known_knees import read_knees
from experiments.runs.requests import Family, Source
from experiments.runs.saturation import knees, trace_knee
from experiments.runs.search_space import default, settings, tunable
from experiments.runs.tuning import COST_IS, SETTINGS, Cost, best, join, made_for, tune_rules
from hardware_profiles import InputError
from policies import PolicySpec

REQUESTS = 1000


@dataclass(frozen=True, kw_only=True)
class TuneOptions(RunOptions):
    """Options of `experiments.tune`."""

    policies: tuple[str, ...] = option(tuple(tunable()), metavar="P", help="knobs that are named stay as they are")
    requests: RequestOptions
    loads: tuple[float, ...] = option(
        (0.7, 0.95, 1.05), metavar="L", help="multiples of the knee of static; for a trace, of that on its tuning part"
    )
    settings: int = option(SETTINGS, metavar="N", help="settings per policy, at most")
    seeds: int = option(2, metavar="N", help=f"number of seeds, from {TUNING_SEEDS[0]}; 1 for a trace")
    cluster: str = option("2P2D", metavar="NPMD", help="prefill and decode nodes")
    knees: Path | None = option(None, metavar="FILE", help=KNEES)
    join: tuple[Path, ...] = option(
        (), metavar="DIR", help="tune nothing, join tuned.json of these folders; goes with no other option but --out"
    )

    def __post_init__(self) -> None:
        check_counts(self, "settings", "seeds")
        check_positive(self, "loads")
        if self.knees is not None and self.requests.trace is not None:
            raise InputError("--knees goes with --workload only")
        parse_shape(self.cluster)
        for name in self.policies:
            settings(PolicySpec.parse(name), self.settings)


def run(options: TuneOptions) -> None:
    """Tune, write tuned.json, and print the chosen settings; or join files."""
    if options.join:
        _join(options)
        return
    config = options.machines.config(options.cluster)
    slos = options.slos.slos()
    trace = options.requests.read_trace(slos, config.profile)
    workload = [trace.name] if trace else options.requests.workload or families()
    known = {} if options.knees is None else read_knees(options.knees, workload, config, slos)
    count = options.requests.requests or REQUESTS
    folder = options.execution.folder("tune", options)
    cache = options.execution.cache(folder)
    claim(folder, "tune", options)
    seeds = range(TUNING_SEEDS[0], TUNING_SEEDS[0] + (1 if trace else options.seeds))
    units: dict[str, float]  # requests per second, or for a trace a multiple of its rate scale
    if trace is not None:
        units = {trace.name: trace_knee(trace, config, cache)}
    elif known:
        units = {family: knee.value for family, knee in known.items()}
    else:
        units = {family: knee.rate_rps for family, knee in knees(workload, slos, config, cache).items()}
    sources: dict[str, Source] = {name: trace or Family(name, 1.0, slos) for name in workload}
    places = [
        (sources[name].tuning(load * units[name], count, seed), config, seed)
        for name, load, seed in product(workload, options.loads, seeds)
    ]
    rules = [PolicySpec.parse(name) for name in options.policies]
    tried = tune_rules(rules, places, options.settings, cache)
    chosen = {rule: best(costs) for rule, costs in tried.items()}
    contents = {
        "command": options.typed,
        "commit": commit(),
        **made_for(config, slos),
        "connector": options.machines.connector,
        "cluster_options": options.machines.cluster_option,
        "report_age_ms": options.machines.report_age_ms,
        "budget": {
            "settings": options.settings,
            "runs_per_setting": len(places),
            "requests_per_run": count,
        },
        "workloads": workload,
        "loads": options.loads,
        **({"knee_rate_scale": units[trace.name]} if trace else {"knees_rps": units}),
        "seeds": list(seeds),
        "criterion": f"least mean cost among settings within {ATTAINMENT_MARGIN:g} of the best mean SLO attainment; "
        f"{COST_IS}",
        "policies": {
            str(rule): {
                "chosen": str(chosen[rule]),
                "tried": [{"policy": str(setting), **cost._asdict()} for setting, cost in costs.items()],
            }
            for rule, costs in tried.items()
        },
    }
    write_json(contents, folder / "tuned.json")
    # For each rule the chosen setting, the costs of all settings, that of the chosen one, and that of the default.
    rows = [(chosen[rule], costs, costs[chosen[rule]], costs[default(rule)]) for rule, costs in tried.items()]
    columns: list[Column[tuple[PolicySpec, dict[PolicySpec, Cost], Cost, Cost]]] = [
        Column("chosen", lambda row: code(str(row[0])), left=True),
        Column("settings tried", lambda row: f"{len(row[1])}"),
        Column("SLO attainment (%)", lambda row: f"{100 * row[2].attainment:.2f}"),
        Column("of the default (%)", lambda row: f"{100 * row[3].attainment:.2f}"),
        Column("cost", lambda row: f"{row[2].cost:.3f}"),
        Column("of the default", lambda row: f"{row[3].cost:.3f}"),
    ]
    print(for_console(table(columns, rows)))
    print(f"\nwritten to {folder / 'tuned.json'}")


def _join(options: TuneOptions) -> None:
    """Write one tuned.json with the chosen settings of several. Raises InputError (folders that do not go together)."""
    alone = TuneOptions(
        machines=ClusterOptions(),
        requests=RequestOptions(),
        slos=SloOptions(),
        execution=options.execution,
        join=options.join,
        typed=options.typed,
    )
    if options != alone:
        raise InputError("--join tunes nothing; it goes with no other option but --out")
    folder = options.execution.folder("tune", options)
    path = folder / "tuned.json"
    sets = join(options.join, path)
    claim(folder, "tune", options)
    write_json(sets, path)
    print(f"{len(sets)} sets of settings written to {path}")


if __name__ == "__main__":
    command(TuneOptions, run, "tune", __doc__)
