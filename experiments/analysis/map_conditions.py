"""The map: finished folders of `experiments.compare`, merged by condition, and the rule with the lowest P95 TTFT."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

from experiments.analysis.bootstrap import Estimate, Interval, seed_mean
from experiments.analysis.folders.comparison_folder import Folder, check_same, named
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from hardware_profiles import InputError
from policies import PolicySpec
from policies.kinds import ROLE_KEEPING, Kind, kind_of

Criterion = Literal["usable", "lowest"]
"""Which rules take part: those within a point of the highest SLO attainment under the same condition, or all."""
_DIFFER = {"policies", "tuned", "workload", "loads", "tbt_slo", "step_budget"}
"""Options in which folders may differ; of these, workloads and loads must agree between folders that are merged."""


class Condition(NamedTuple):
    """A condition that rules are compared under."""

    step_budget: str
    tbt_slo_s: float
    workload: str
    load: float


class RuleRuns(NamedTuple):
    """The runs of one rule under one condition: means over seeds of P95 TTFT (seconds), SLO attainment and rate."""

    policy: PolicySpec
    kind: Kind
    p95: Estimate
    attainment: Estimate
    rate_rps: float
    seeds: int

    def over(self, base: "RuleRuns") -> Interval:
        """P95 TTFT over that of another rule, paired by seed."""
        return self.p95.over(base.p95).interval(log=True)


Conditions = dict[Condition, list[RuleRuns]]
"""Every rule's runs by condition; rules under one condition ran on the same requests, in the same order of seeds."""


def merge(folders: Sequence[Folder]) -> Conditions:
    """Every rule's runs by condition, in order of step budget, TBT SLO, and the folders' workloads; loads ascend.

    Raises:
        InputError: folders that were not run with the same options or on the same requests.
    """
    for folder in folders[1:]:
        check_same(folders[0], folder, (folders[0].options.keys() | folder.options.keys()) - _DIFFER)
    merged: Conditions = {}
    for table in sorted({folder.table for folder in folders}):
        first, *others = [folder for folder in folders if folder.table == table]
        trials, specs = dict(first.trials), dict(first.policies)
        base = next(iter(specs))
        for folder in [first, *others]:
            check_same(first, folder, {"workload", "loads"})
            for label, spec in folder.policies.items():
                if specs.setdefault(label, spec) != spec:
                    raise InputError(f"{folder.path}: {label} is {spec}, and {specs[label]} in another folder")
            for trial, measured in folder.trials.items():
                where = f"{folder.path}: the run of {named(*trial)}"
                if trials.setdefault(trial, measured) != measured:
                    raise InputError(f"{where} had another result in another folder")
                if measured[:2] != trials[base, *trial[1:]][:2]:  # rate and number of requests
                    raise InputError(f"{where} had other requests than {base} of {first.path}")
        for workload, load in product(first.options["workload"], sorted(first.options["loads"])):
            rules = merged[Condition(*table, workload, load)] = []
            for label, spec in specs.items():
                runs = [trials[label, workload, load, seed] for seed in first.seeds]
                rate_rps, _, p95, attainment = map(seed_mean, zip(*runs, strict=True))
                rules.append(RuleRuns(spec, kind_of(spec), p95, attainment, rate_rps.value, len(runs)))
    return merged


class Contest(NamedTuple):
    """The best rule of each kind that takes part under one condition, by the mean over seeds of P95 TTFT, lowest first.

    Attributes:
        top_attainment: the highest mean SLO attainment of a rule, whether or not it takes part.
        tied_kinds: kinds whose best rule is tied with the winner.
        role_free_ratio: P95 TTFT of the best role-free rule over that of the best role-keeping one, if there are both.
    """

    best: dict[Kind, RuleRuns]
    winner: RuleRuns
    top_attainment: float
    tied_kinds: list[Kind]
    role_free_ratio: Interval | None


Contests = dict[Condition, Contest]


def tied(ratio_to_base: Interval) -> bool:
    """Whether the paired 95 % interval of a ratio includes 1."""
    return not ratio_to_base.excludes(1.0)


def contest(rules: Sequence[RuleRuns], criterion: Criterion) -> Contest:
    """Compare the rules under one condition; policies of kind "other" are left out.

    Raises:
        InputError: there are no other rules.
    """
    known = [runs for runs in rules if runs.kind != "other"]
    if not known:
        raise InputError("no rule to compare: learned policies, users' classes and bounds are left out of the map")
    top_attainment = max(runs.attainment.value for runs in known)
    least = top_attainment - ATTAINMENT_MARGIN if criterion == "usable" else 0.0
    best: dict[Kind, RuleRuns] = {}
    for runs in sorted(known, key=lambda runs: runs.p95.value):
        if runs.attainment.value >= least:
            best.setdefault(runs.kind, runs)
    winner, *others = best.values()
    tied_kinds = [runs.kind for runs in others if tied(runs.over(winner))]
    free, keeping = best.get("role-free"), next((best[kind] for kind in best if kind in ROLE_KEEPING), None)
    return Contest(best, winner, top_attainment, tied_kinds, free.over(keeping) if free and keeping else None)
