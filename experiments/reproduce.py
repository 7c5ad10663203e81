"""Compare the claims of arXiv 2607.02043 with what the simulator finds.

Runs the workload families on 2P2D for each profile and link, at loads relative to the knee of static there; starved
shapes and a slower decode node; loads well below and above the knee; and variants of kairos. The SLOs, families and
baselines are not from the paper, which does not publish its own.

Writes into --out: claims.csv, cells.csv (one row per run), figures/*.png, summary.md, and report.html, a self-contained
page with both. Finished runs are kept in runs/: the same command resumes, and one that asks for more runs only what is
new. The default sizes take about a quarter of an hour on two cores.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import inf

from experiments.analysis.comparison import BASE, shown_load
from experiments.analysis.outcome import Outcome
from experiments.analysis.paper import paper_evidence
from experiments.analysis.paper.ablations import variants
from experiments.analysis.paper.paper_evidence import BURSTY, KAIROS, TUNED, Evidence, Place, Setting, stressed
from experiments.options.execution_options import ExecutionOptions, check_policies
from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from experiments.options.request_options import check_families
from experiments.options.slo_options import SloOptions
from experiments.reports.document import claim, made_by
from experiments.reports.formatting import counted, slos_line
from experiments.reports.paper.claims_report import write_claims
from experiments.runs.cache import Cache
from experiments.runs.data_splits import TUNING_SEEDS
from experiments.runs.requests import Family
from experiments.runs.saturation import knee_search, run_searches
from experiments.runs.trial import Trial, run_trials
from experiments.runs.tuning import SETTINGS, best, tune_rules
from policies import PolicySpec

PROFILES = ("a100-deepseek-v2-lite", "a100-deepseek-v2-lite-paper", "a100-qwen3-8b")
FAMILIES = ("LPLD", "LPHD", "HPLD", "HPHD", "burst", "spike")
POLICIES = ("round-robin", "splitwise", "mooncake", "always-local", "shortest-ttft")
SWEEP = (0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2, 1.5, 2.0)
TUNING_LOAD = 0.95
Families = Mapping[tuple[Setting, str], Family]
"""Those with a knee, by cluster and name; load 1 is the knee."""


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(CommandOptions):
    """Options of `experiments.reproduce`."""

    profiles: tuple[str, ...] = option(PROFILES, metavar="P", help="hardware profiles")
    connectors: tuple[str, ...] = option(
        ("rdma", "small-descriptors"), metavar="C", help="links; stressed clusters and variants have the first only"
    )
    families: tuple[str, ...] = option(FAMILIES, metavar="W", help="workload families")
    policies: tuple[str, ...] = option(POLICIES, metavar="P", help="in addition to static, kairos and tuned kairos")
    loads: tuple[float, ...] = option((0.5, 0.7, 0.95, 1.2), metavar="L", help="multiples of the knee of static")
    requests: int = option(1000, metavar="N", help="requests per run, at least")
    span: float = option(20.0, metavar="S", help="seconds of arrivals, at least")
    seeds: int = option(10, metavar="N", help="seeds 0 to N - 1")
    slos: SloOptions
    execution: ExecutionOptions

    def __post_init__(self) -> None:
        check_counts(self, "requests", "seeds")
        check_positive(self, "loads", "span")
        check_families(self.families)
        check_policies([*self.rules, PolicySpec(TUNED, KAIROS, "", None)])
        for setting in self.machines:
            _ = setting.config  # says which profile or connector does not exist

    @property
    def rules(self) -> list[PolicySpec]:
        """The policies of the main cells but the tuned one."""
        return list(dict.fromkeys(map(PolicySpec.parse, [BASE, *self.policies, KAIROS])))

    @property
    def machines(self) -> list[Setting]:
        """Profiles over links."""
        return paper_evidence.every_machine(self.profiles, self.connectors)

    @property
    def first(self) -> list[Setting]:
        """Profiles over the first link."""
        return paper_evidence.every_machine(self.profiles, self.connectors[:1])


def run(options: ReproduceOptions) -> None:
    """Run everything, write its folder, and print the table of claims."""
    folder = options.execution.folder("reproduce", options)
    claim(folder, "reproduce", options)
    evidence = gather(options, options.execution.cache(folder))
    of_each = {name: Family(name, slos=options.slos.slos()).own_slos for name in options.families}
    size = f"a run has {options.requests:,} requests, or as many more as arrive in {options.span:g} s"
    about = [f"{size}; {counted(options.seeds, 'seed')}", slos_line(of_each)]
    seeds = f"0 to {options.seeds - 1}"
    made = [made_by(options.typed, setting.config.profile, seeds) for setting in options.machines]
    print(write_claims(evidence, about, made, folder))
    print(f"\nwritten to {folder}: report.html, summary.md, figures/, claims.csv, cells.csv")


def gather(options: ReproduceOptions, cache: Cache) -> Evidence:
    """Run everything that is not finished yet."""
    slos = options.slos.slos()
    plain, hard = product(options.machines, [*options.families, BURSTY]), product(stressed(options.first), [BURSTY])
    searches = {(setting, name): knee_search(name, slos, setting.config) for setting, name in [*plain, *hard]}
    found = run_searches(searches.values(), cache)
    knees = {key: found[search].rate_rps for key, search in searches.items()}
    families = {
        key: Family(key[1], rate_rps, slos, options.span) for key, rate_rps in knees.items() if 0 < rate_rps < inf
    }
    tuned = _tuned(options, families, cache)
    groups: dict[Place, dict[str, list[Outcome]]] = {}
    planned = _trials(options, tuned, families)
    outcomes = run_trials([trial for _, trial in planned], cache)
    for (place, _), outcome in zip(planned, outcomes, strict=True):
        groups.setdefault(place, {}).setdefault(outcome.policy.label, []).append(outcome)
    return Evidence(
        {
            place: {label: paper_evidence.SeedRuns(runs) for label, runs in group.items()}
            for place, group in groups.items()
        },
        (*(spec.label for spec in options.rules), TUNED),
        tuned,
        knees,
        tuple(options.machines),
        options.families,
        options.loads,
        options.seeds,
    )


def _tuned(options: ReproduceOptions, families: Families, cache: Cache) -> dict[Setting, PolicySpec]:
    """The knobs of kairos that are best over the families of each machine, on a separate set of requests."""
    tuned = {}
    for setting in options.machines:
        known = [families[setting, name] for name in options.families if (setting, name) in families]
        runs = [
            (family.tuning(TUNING_LOAD, options.requests, TUNING_SEEDS[0]), setting.config, seed)
            for seed, family in enumerate(known)
        ]
        if runs:
            (tried,) = tune_rules([PolicySpec.parse(KAIROS)], runs, SETTINGS, cache).values()
            chosen = best(tried)
            tuned[setting] = PolicySpec(TUNED, chosen.rule, chosen.params, None)
    return tuned


def _trials(
    options: ReproduceOptions, tuned: Mapping[Setting, PolicySpec], families: Families
) -> list[tuple[Place, Trial]]:
    """Every trial with its place; those that share requests follow each other."""
    wanted = dict.fromkeys(_wanted(options, tuned))
    rank = {setting: rank for rank, setting in enumerate(dict.fromkeys(place.setting for place, _ in wanted))}
    trials = []
    for (place, policy), seed in product(wanted, range(options.seeds)):
        setting, name, load = place
        if family := families.get((setting.default_age, name)):
            requests = family.at(load, options.requests, seed)
            trials.append((place, Trial(policy, name, load, seed, requests, setting.config, keep_requests=False)))
    return sorted(trials, key=lambda one: (rank[one[0].setting], *one[0][1:], one[1].seed))


def _wanted(options: ReproduceOptions, tuned: Mapping[Setting, PolicySpec]) -> Iterator[tuple[Place, PolicySpec]]:
    """The main cells, the bursty family at many loads, stressed clusters, and the variants of kairos."""
    static, kairos = PolicySpec.parse(BASE), PolicySpec.parse(KAIROS)
    shown = shown_load(options.loads)
    plans = [
        (options.machines, options.families, options.loads, options.rules),
        (options.machines, [BURSTY], SWEEP, [static, kairos]),
        (stressed(options.first), [BURSTY], (shown, max(options.loads)), options.rules),
        (options.first, [BURSTY], [shown], [static]),
    ]
    for settings, names, loads, rules in plans:
        for setting, name, load in product(settings, names, loads):
            if setting.plain in tuned:
                yield from ((Place(setting, name, load), rule) for rule in [*rules, tuned[setting.plain]])
    for setting, variant in product(options.first, variants()):
        if setting in tuned:
            yield variant.at(Place(setting, BURSTY, shown)), PolicySpec.parse(variant.policy)


if __name__ == "__main__":
    command(ReproduceOptions, run, "reproduce", __doc__)
