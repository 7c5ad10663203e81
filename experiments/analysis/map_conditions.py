"""The map: finished folders of `experiments.compare`, merged by condition, and the rule with the lowest P95 TTFT."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple

from envs.workload import TBT_SLO_S, TTFT_SLO_S
from experiments.analysis.bootstrap import FEWEST_UNITS, Estimate, Interval, seed_mean
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from hardware_profiles import InputError
from policies import PolicySpec
from policies.kinds import ROLE_KEEPING, Kind, kind_of

Criterion = Literal["usable", "lowest"]
"""Which rules take part: those within a point of the highest SLO attainment under the same condition, or all."""
_DIFFER = {"policies", "tuned", "workload", "loads", "tbt_slo", "step_budget"}
"""Options in which folders may differ; of these, workloads and loads must agree between folders that are merged."""
_NOT_RESULTS = {"typed", "out", "executor", "jobs"}


class Condition(NamedTuple):
    """A condition that rules are compared under."""

    step_budget: str
    tbt_slo_s: float
    workload: str
    load: float


_Trial = tuple[str, str, float, int]
"""Policy, workload, load and seed."""
_named = "{}, {}, load {:g}, seed {}".format
_COLUMNS = ("rate_rps", "requests", "ttft_p95_s", "slo_attainment")
"""The columns of cells.csv that the map needs."""


class Folder(NamedTuple):
    """A finished comparison.

    Attributes:
        options: of the command, by name; loads and seeds as they were run, SLOs with their defaults.
        table: step budget and TBT SLO (seconds); folders that have both in common are merged.
        policies: by label, with tuned parameters.
        trials: _COLUMNS of each trial.
        tuning: how the parameters of its rules were chosen, as part of a sentence.
    """

    path: Path
    options: Mapping[str, Any]
    table: tuple[str, float]
    seeds: range
    policies: Mapping[str, PolicySpec]
    trials: Mapping[_Trial, tuple[float, ...]]
    tuning: str

    @classmethod
    def read(cls, path: Path) -> "Folder":
        """Read a folder.

        Raises:
            InputError: it is not a finished comparison of workload families.
        """
        note, cells = path / "command.json", path / "cells.csv"
        try:
            command = json.loads(note.read_bytes())
            options = _flat(command["options"]) | {name: command[name] for name in ("requests", "loads")}
            options["seeds"] = len(command["seeds"])
            for name, default_s in (("ttft_slo", TTFT_SLO_S), ("tbt_slo", TBT_SLO_S)):
                options[name] = default_s if options[name] is None else options[name]
            specs = {spec.label: spec for spec in map(PolicySpec.parse, command["policies"])}
            tuning = "default parameters" if command["tuning"] is None else f"tuned with {command['tuning']}"
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{note}: not a file that experiments.compare wrote, or a damaged one") from None
        if options["slo_class"]:
            raise InputError(f"{note}: has classes of SLOs; the map is for one TBT SLO per folder")
        if not options["workload"]:
            raise InputError(f"{path}: the map needs workload families, not a trace")
        if options["seeds"] < FEWEST_UNITS:
            raise InputError(f"{path}: {options['seeds']} seeds; the map needs {FEWEST_UNITS} or more to tell ties")
        if not cells.exists():
            raise InputError(f"{path}: no cells.csv; the comparison is not finished")
        seeds = range(options["first_seed"], options["first_seed"] + options["seeds"])
        trials, expected = _trials(cells), {*product(specs, options["workload"], options["loads"], seeds)}
        for trial in sorted(expected ^ trials.keys()):
            what = "lacks" if trial in expected else "has, unlike command.json,"
            raise InputError(f"{cells}: {what} the run of {_named(*trial)}")
        return cls(path, options, (options["step_budget"], options["tbt_slo"]), seeds, specs, trials, tuning)


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command by name, without its groups and what no result depends on."""
    flat: dict[str, Any] = {}
    for name in options.keys() - _NOT_RESULTS:
        flat |= _flat(options[name]) if isinstance(options[name], dict) else {name: options[name]}
    return flat


def _trials(path: Path) -> dict[_Trial, tuple[float, ...]]:
    found: dict[_Trial, tuple[float, ...]] = {}
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                trial = row["policy"], row["workload"], float(row["load"]), int(row["seed"])
                found[trial] = tuple(float(row[name]) for name in _COLUMNS)
                if not all(map(isfinite, found[trial])) or float(row["ttft_p95_s"]) <= 0:
                    raise ValueError("P95 TTFT, attainment or rate is not a possible number")
            except (LookupError, ValueError, TypeError) as error:
                raise InputError(f"{path}, line {line}: not the row of a run ({error})") from None
    return found


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
        _check_same(folders[0], folder, (folders[0].options.keys() | folder.options.keys()) - _DIFFER)
    merged: Conditions = {}
    for table in sorted({folder.table for folder in folders}):
        first, *others = [folder for folder in folders if folder.table == table]
        trials, specs = dict(first.trials), dict(first.policies)
        base = next(iter(specs))
        for folder in [first, *others]:
            _check_same(first, folder, {"workload", "loads"})
            for label, spec in folder.policies.items():
                if specs.setdefault(label, spec) != spec:
                    raise InputError(f"{folder.path}: {label} is {spec}, and {specs[label]} in another folder")
            for trial, measured in folder.trials.items():
                where = f"{folder.path}: the run of {_named(*trial)}"
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


def _check_same(one: Folder, other: Folder, names: Iterable[str]) -> None:
    for name in sorted(names):
        values = [folder.options.get(name) for folder in (one, other)]
        first, second = (sorted(value) if isinstance(value, list) else value for value in values)  # in any order
        if first != second:
            given = ", ".join(map(str, values))
            raise InputError(f"{one.path} and {other.path} differ in --{name.replace('_', '-')}: {given}")


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
