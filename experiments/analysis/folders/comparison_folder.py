"""A finished folder of `experiments.compare`, and the check that several of them belong together."""

import csv
import json
from collections.abc import Iterable, Mapping
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from envs.workload import TBT_SLO_S, TTFT_SLO_S
from experiments.analysis.bootstrap import FEWEST_UNITS
from hardware_profiles import InputError
from policies import PolicySpec

_NOT_RESULTS = {"typed", "out", "executor", "jobs", "knees"}
"""Options that may differ between folders; the rates that --knees gives are compared themselves."""
_NEEDED = "give finished folders of experiments.compare"

Trial = tuple[str, str, float, int]
"""Policy, workload, load and seed."""
named = "{}, {}, load {:g}, seed {}".format
"""A trial in words."""
COLUMNS = ("rate_rps", "requests", "ttft_p95_s", "slo_attainment")
"""The columns of cells.csv that are read."""


class Folder(NamedTuple):
    """A finished comparison.

    Attributes:
        options: of the command, by name; loads and seeds as they were run, SLOs with their defaults.
        table: step budget and TBT SLO (seconds); folders that have both in common are merged.
        policies: by label, with tuned parameters.
        trials: COLUMNS of each trial.
        tuning: how the parameters of its rules were chosen, as part of a sentence.
        knees_rps: the rate of load 1 on each workload, requests per second; empty if the folder has no knees.json.
    """

    path: Path
    options: Mapping[str, Any]
    table: tuple[str, float]
    seeds: range
    policies: Mapping[str, PolicySpec]
    trials: Mapping[Trial, tuple[float, ...]]
    tuning: str
    knees_rps: Mapping[str, float]

    @classmethod
    def read(cls, path: Path, fewest_seeds: int = FEWEST_UNITS) -> "Folder":
        """Read a folder.

        Raises:
            InputError: it is not a finished comparison of workload families with at least `fewest_seeds` seeds.
        """
        note, cells = path / "command.json", path / "cells.csv"
        if not note.exists():
            raise InputError(f"{path}: {'no command.json' if path.is_dir() else 'no such folder'}; {_NEEDED}")
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
            raise InputError(f"{note}: has classes of SLOs; one TBT SLO per folder is needed")
        if not options["workload"]:
            raise InputError(f"{path}: workload families are needed, not a trace")
        if options["seeds"] < fewest_seeds:
            given = "1 seed" if options["seeds"] == 1 else f"{options['seeds']} seeds"
            raise InputError(f"{path}: {given}; {fewest_seeds} or more are needed")
        if not cells.exists():
            raise InputError(f"{path}: no cells.csv; the comparison is not finished")
        seeds = range(options["first_seed"], options["first_seed"] + options["seeds"])
        trials, expected = _trials(cells), {*product(specs, options["workload"], options["loads"], seeds)}
        for trial in sorted(expected ^ trials.keys()):
            what = "lacks" if trial in expected else "has, unlike command.json,"
            raise InputError(f"{cells}: {what} the run of {named(*trial)}")
        table = options["step_budget"], options["tbt_slo"]
        return cls(path, options, table, seeds, specs, trials, tuning, _knees_rps(path / "knees.json"))

    def rate_rps(self, workload: str, load: float) -> float:
        """The nominal rate of a workload at a load, requests per second; InputError if the folder has no knee."""
        if workload not in self.knees_rps:
            raise InputError(f"{self.path}: no knees.json with the knee of {workload}; {_NEEDED}")
        return load * self.knees_rps[workload]


def _knees_rps(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        return {name: float(knee["value"]) for name, knee in json.loads(path.read_bytes())["knees_rps"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: not a file that experiments.compare wrote, or a damaged one") from None


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command by name, without its groups and what no result depends on."""
    flat: dict[str, Any] = {}
    for name in options.keys() - _NOT_RESULTS:
        flat |= _flat(options[name]) if isinstance(options[name], dict) else {name: options[name]}
    return flat


def _trials(path: Path) -> dict[Trial, tuple[float, ...]]:
    found: dict[Trial, tuple[float, ...]] = {}
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                trial = row["policy"], row["workload"], float(row["load"]), int(row["seed"])
                found[trial] = tuple(float(row[name]) for name in COLUMNS)
                if not all(map(isfinite, found[trial])) or float(row["ttft_p95_s"]) <= 0:
                    raise ValueError("P95 TTFT, attainment or rate is not a possible number")
            except (LookupError, ValueError, TypeError) as error:
                raise InputError(f"{path}, line {line}: not the row of a run ({error})") from None
    return found


class Described(Protocol):
    """Results that were made with options of `experiments.compare`: a folder, or a file made from folders."""

    @property
    def path(self) -> Path:
        """Its place, for messages."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options by name."""


def check_same(one: Described, other: Described, names: Iterable[str]) -> None:
    """Raise InputError, which names the option, if two of them differ in one of these options."""
    for name in sorted(names):
        values = [each.options.get(name) for each in (one, other)]
        first, second = (sorted(value) if isinstance(value, list) else value for value in values)  # in any order
        if first != second:
            given = ", ".join(map(str, values))
            raise InputError(f"{one.path} and {other.path} differ in --{name.replace('_', '-')}: {given}")
