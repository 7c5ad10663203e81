"""Find how much each policy carries on each split of the nodes into prefill and decode.

The capacity of a policy on a split is the highest rate at which it meets both SLOs of 90 % of the requests, found by
bisection for each seed apart. A seed fixes the lengths and the pattern of arrivals and the rate their pace, so policies
are compared on the same requests. Goodput is that rate per GPU (DistServe, arXiv 2401.09670).

Writes into --out: capacity.csv (one row per policy, split and seed), figures/capacity.png, summary.md and report.html.
Finished searches are kept in runs/: the same command, or one with more policies, splits or seeds, resumes. The default
sizes take about a quarter of an hour on two cores.
"""

from dataclasses import dataclass
from itertools import groupby, product
from math import isinf
from pathlib import Path

import policies
from envs.cluster import parse_shape
from experiments.analysis.csv_files import write_csv
from experiments.analysis.metrics import gpus
from experiments.options.execution_options import RunOptions
from experiments.options.parser import check_counts, check_positive, command, option
from experiments.options.request_options import check_families
from experiments.reports.capacity_report import Capacity, write_capacity
from experiments.reports.columns import plain
from experiments.reports.document import claim, made_by
from experiments.reports.formatting import slos_line
from experiments.runs.data_splits import CAPACITY_SEED
from experiments.runs.requests import Family
from experiments.runs.saturation import TARGET, TOLERANCE, Search, run_searches
from experiments.runs.trial import MEASURED
from experiments.runs.tuning import TunedSettings
from hardware_profiles import InputError
from policies import PolicySpec

_NOT_SEARCHED = ("random", "static-share")
"""Rules without a published source; searched only when named explicitly."""
_POLICIES = tuple(name for name in policies.names() if name not in _NOT_SEARCHED)
_SPLITS = tuple(f"{prefill}P{nodes - prefill}D" for nodes in (4, 6, 8) for prefill in range(1, nodes))


@dataclass(frozen=True, kw_only=True)
class CapacityOptions(RunOptions):
    """Options of `experiments.capacity`."""

    policies: tuple[str, ...] = option(_POLICIES, metavar="P", help="rules, module:Class, or trained policies' files")
    tuned: Path | None = option(
        None,
        metavar="FILE",
        help="tuned.json: policies named without knobs get theirs from it, on every split the same; shipped: sets that "
        "come with the project",
    )
    workload: str = option("burst", metavar="W", help="a family")
    splits: tuple[str, ...] = option(_SPLITS, metavar="NPMD", help="prefill and decode nodes")
    requests: int = option(800, metavar="N", help="requests per run, at least")
    span: float = option(30.0, metavar="S", help="seconds of arrivals, at least")
    seeds: int = option(8, metavar="N", help="searches of each policy and split")

    def __post_init__(self) -> None:
        check_counts(self, "requests", "seeds")
        check_positive(self, "span")
        check_families([self.workload])


def run(options: CapacityOptions) -> None:
    """Search, write the folder, and print its tables. Raises InputError (a policy meets the target at every rate)."""
    slos = options.slos.slos()
    configs = {split: options.machines.config(split) for split in options.splits}
    specs = [PolicySpec.parse(name) for name in options.policies]
    tuned = None
    if options.tuned is not None:
        tuned = TunedSettings.read_for(options.tuned, configs[options.splits[0]], slos, any_shape=True)
        specs = [tuned.of(spec) for spec in specs]
    for spec in specs:
        spec.make()
    folder = options.execution.folder("capacity", options)
    claim(folder, "capacity", options)

    family = Family(options.workload, 1.0, slos, options.span)
    seeds = range(CAPACITY_SEED, CAPACITY_SEED + options.seeds)
    searches = [
        Search(spec, family, options.requests, config, (seed,))
        for config, spec, seed in product(configs.values(), dict.fromkeys(specs), seeds)
    ]
    knees = run_searches(searches, options.execution.cache(folder))
    for search, knee in knees.items():
        if isinf(knee.rate_rps):
            raise InputError(
                f"{search.policy.label} meets the target at every rate on {search.config.shape}: a longer --span"
            )
    groups = groupby(searches, key=lambda search: (search.policy, search.config))
    found = [
        Capacity(spec, config.shape, gpus(config), tuple([knees[search] for search in several]))
        for (spec, config), several in groups
    ]

    rows = [
        [
            *(one.policy.label, one.split, *parse_shape(one.split), one.gpus, seed),
            *(knee.rate_rps, knee.rate_rps / one.gpus, int(knee.dipped), len(knee.tried)),
        ]
        for one in found
        for seed, knee in zip(seeds, one.knees, strict=True)
    ]
    header = ["policy", "split", "prefill_nodes", "decode_nodes", "gpus", "seed", "goodput_rps"]
    write_csv(folder / "capacity.csv", [*header, "goodput_rps_per_gpu", "missed_below", "runs"], rows)
    profile = configs[options.splits[0]].profile
    about = [
        f"{plain(profile.name)}; node reports {options.machines.report_age_ms:g} ms old",
        f"workload {plain(options.workload)}: {options.requests:,} requests or those of {options.span:g} s, whichever "
        f"are more; {options.seeds} seeds",
        f"capacity is the highest rate at which {TARGET:.0%} of the requests that arrived in the measured window meet "
        f"both SLOs, found by bisection to {TOLERANCE:.0%}; goodput is that rate per GPU (arXiv 2401.09670)",
        slos_line({options.workload: family.own_slos}),
        MEASURED,
        *([tuned.about()] if tuned is not None else []),
        "each seed is searched apart, on the same requests for every policy; [95 % intervals] are bootstraps over "
        "seeds, in pairs between policies, on the logarithmic scale",
    ]
    made = made_by(options.typed, profile, f"{seeds[0]} to {seeds[-1]}")
    print(write_capacity(found, f"{options.workload}, {profile.name}", about, made, folder))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, capacity.csv")


if __name__ == "__main__":
    command(CapacityOptions, run, "capacity", __doc__)
