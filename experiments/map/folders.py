"""Finished folders of `experiments.compare`, read, checked against each other, and merged."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import policies
from envs.workload import TBT_SLO_S, TTFT_SLO_S
from experiments.map.kinds import Kind, kind_of
from experiments.tuned import Tuned
from hardware_profiles import InputError

Floats = NDArray[np.float64]

FEWEST_SEEDS = 5
"""With fewer seeds the intervals say too little about ties."""
_DIFFER = {"policies", "tuned", "workload", "loads", "tbt_slo", "step_budget"}
"""Options in which folders may differ; of these, workloads and loads must agree between folders that are merged."""
_MEASURED = ("rate_rps", "requests", "ttft_p95_s", "slo_attainment")


class Condition(NamedTuple):
    """What the rules are compared under."""

    step_budget: str
    tbt_slo_s: float
    workload: str
    load: float


@dataclass(frozen=True)
class RuleRuns:
    """The runs of one rule under one condition.

    Attributes:
        label: the rule's name in tables.
        kind: what it does with roles.
        ttft_p95_s: P95 TTFT of each run, shape (seeds,), seconds.
        slo_attainment: share of requests that met both SLOs in each run, shape (seeds,).
        rate_rps: mean arrival rate over the runs, requests per second.
    """

    label: str
    kind: Kind
    ttft_p95_s: Floats
    slo_attainment: Floats
    rate_rps: float


Conditions = dict[Condition, list[RuleRuns]]
"""Every rule's runs by condition; rules under one condition ran on the same requests, in the same order of seeds."""


class _Trial(NamedTuple):
    """One policy, workload, load and seed."""

    policy: str
    workload: str
    load: float
    seed: int


class _Measured(NamedTuple):
    """The columns of cells.csv that the map needs."""

    rate_rps: float
    requests: float
    ttft_p95_s: float
    slo_attainment: float


@dataclass(frozen=True)
class Folder:
    """A finished comparison.

    Attributes:
        path: of the folder.
        command: its options, as command.json has them.
        settings: by the label of each policy, what `policies.make` takes, with tuned parameters.
        trials: by trial, what was measured.
        tuning: how the parameters of its rules were chosen, as part of a sentence.
    """

    path: Path
    command: Mapping[str, Any]
    settings: Mapping[str, str]
    trials: Mapping[_Trial, _Measured]
    tuning: str

    @property
    def table(self) -> tuple[str, float]:
        """Step budget and TBT SLO (seconds): folders that have both in common are merged."""
        return self.command["step_budget"], self.command["tbt_slo"]

    @classmethod
    def read(cls, path: Path) -> "Folder":
        """Read a folder.

        Raises:
            InputError: it is not a finished comparison of workload families.
        """
        command = _command(path)
        if not (path / "cells.csv").exists():
            raise InputError(f"{path}: no cells.csv; the comparison is not finished")
        if not command["workload"]:
            raise InputError(f"{path}: the map needs workload families, not a trace")
        if command["seeds"] < FEWEST_SEEDS:
            raise InputError(f"{path}: {command['seeds']} seeds; the map needs {FEWEST_SEEDS} or more to tell ties")
        settings, tuning = list(command["policies"]), "default parameters"
        if command["tuned"] is not None:
            tuned = _tuned(Path(command["tuned"]), path)
            settings, tuning = tuned.replace(settings), f"tuned with {tuned.budget}"
        by_label = {policies.label(setting): setting for setting in settings}
        return cls(path, command, by_label, _trials(path / "cells.csv", command, list(by_label)), tuning)


def _command(path: Path) -> dict[str, Any]:
    note = path / "command.json"
    needed = {*_DIFFER, "seeds"}
    try:
        command = json.loads(note.read_bytes())
        missing = needed - command.keys()
    except (ValueError, AttributeError):
        raise InputError(f"{note}: not a file that experiments.compare wrote, or a damaged one") from None
    if missing:
        raise InputError(f"{note}: no {', '.join(sorted(missing))}; not written by experiments.compare")
    if command.get("slo_class"):
        raise InputError(f"{note}: has classes of SLOs; the map is for one TBT SLO per folder")
    defaults = {"ttft_slo": TTFT_SLO_S, "tbt_slo": TBT_SLO_S}
    return dict(command) | {name: default for name, default in defaults.items() if command.get(name) is None}


def _tuned(named: Path, folder: Path) -> Tuned:
    """The tuned parameters that a folder used: where its command found them, or next to the folder if both moved."""
    return Tuned.read(named if named.exists() else folder.parent / named.name)


def _trials(path: Path, command: Mapping[str, Any], labels: Sequence[str]) -> dict[_Trial, _Measured]:
    found: dict[_Trial, _Measured] = {}
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if missing := {*_Trial._fields, *_MEASURED} - {*(rows.fieldnames or ())}:
            raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
        for line, row in enumerate(rows, start=2):
            try:
                trial = _Trial(row["policy"], row["workload"], float(row["load"]), int(row["seed"]))
                measured = _Measured(*(float(row[name]) for name in _MEASURED))
            except (ValueError, TypeError):
                raise InputError(f"{path}, line {line}: not the row of a run") from None
            if not all(map(isfinite, measured)) or measured.ttft_p95_s <= 0:
                raise InputError(f"{path}, line {line}: P95 TTFT, attainment or rate is not a number that can be")
            found[trial] = measured
    expected = {
        _Trial(label, workload, load, seed)
        for label in labels
        for workload in command["workload"]
        for load in command["loads"]
        for seed in range(command["seeds"])
    }
    if found.keys() != expected:
        trial = min(expected ^ found.keys())
        what = "lacks" if trial in expected else "has, unlike command.json,"
        raise InputError(
            f"{path}: {what} the run of {trial.policy}, {trial.workload}, load {trial.load:g}, seed {trial.seed}"
        )
    return found


def merge(folders: Sequence[Folder]) -> Conditions:
    """Every rule's runs by condition, in order of step budget, TBT SLO, and the folders' workloads; loads ascend.

    Raises:
        InputError: folders that were not run with the same options or on the same requests.
    """
    _check_options(folders)
    merged: Conditions = {}
    for table in sorted({folder.table for folder in folders}):
        same = [folder for folder in folders if folder.table == table]
        trials, settings = _merged(same)
        command = same[0].command
        seeds = range(command["seeds"])
        for workload in command["workload"]:
            for load in sorted(command["loads"]):
                merged[Condition(*table, workload, load)] = [
                    _runs(label, setting, [trials[_Trial(label, workload, load, seed)] for seed in seeds])
                    for label, setting in settings.items()
                ]
    return merged


def _runs(label: str, setting: str, trials: Sequence[_Measured]) -> RuleRuns:
    values = np.array(trials, dtype=np.float64)
    rate_rps, _, ttft_p95_s, slo_attainment = values.T
    return RuleRuns(label, kind_of(setting), ttft_p95_s, slo_attainment, float(rate_rps.mean()))


def _check_options(folders: Sequence[Folder]) -> None:
    first = folders[0]
    for folder in folders[1:]:
        for name in sorted((first.command.keys() | folder.command.keys()) - _DIFFER):
            if first.command.get(name) != folder.command.get(name):
                raise _mismatch(first, folder, name)


def _mismatch(one: Folder, other: Folder, name: str) -> InputError:
    option = "--" + name.replace("_", "-")
    return InputError(
        f"{one.path} and {other.path} differ in {option}: {one.command.get(name)}, {other.command.get(name)}"
    )


def _merged(folders: Sequence[Folder]) -> tuple[dict[_Trial, _Measured], dict[str, str]]:
    """Trials and settings of folders of one step budget and TBT SLO."""
    first = folders[0]
    trials, settings = dict(first.trials), dict(first.settings)
    base = next(iter(settings))
    for folder in folders[1:]:
        for name in ("workload", "loads"):
            if set(folder.command[name]) != set(first.command[name]):
                raise _mismatch(first, folder, name)
        for label, setting in folder.settings.items():
            if settings.setdefault(label, setting) != setting:
                raise InputError(f"{folder.path}: {label} is {setting}, and {settings[label]} in another folder")
        for trial, measured in folder.trials.items():
            if trials.setdefault(trial, measured) != measured:
                raise InputError(f"{folder.path}: {_named(trial)} had another result in another folder")
    for trial, measured in trials.items():
        expected = trials[trial._replace(policy=base)]
        if (measured.rate_rps, measured.requests) != (expected.rate_rps, expected.requests):
            where = next(folder.path for folder in folders if trial in folder.trials)
            raise InputError(f"{where}: {_named(trial)} ran on other requests than {base} of {first.path}")
    return trials, settings


def _named(trial: _Trial) -> str:
    return f"{trial.policy}, {trial.workload}, load {trial.load:g}, seed {trial.seed},"
