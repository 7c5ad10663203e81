"""Tuning rules: what a setting costs, which setting is best, and files of tuned settings.

The cost is the one that learned policies minimise (`envs.objective`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import policies
from envs.cluster import ClusterConfig, simulate
from envs.objective import TUNING_OBJECTIVE, Objective
from envs.slos import SloClass, Slos
from envs.workload import Workload
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.analysis.request_table import Attainment, as_array
from experiments.runs import fingerprint
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.requests import Recipe, made
from experiments.runs.search_space import default, settings, tunable
from hardware_profiles import InputError
from policies import PolicySpec

SETTINGS = 18
SHIPPED = Path(policies.__file__).with_name("shipped_settings.json")
"""Settings that ship with the project: one set for each of several conditions, with the command that tuned it."""
COST_IS = f"cost per request: TTFT / SLO + {TUNING_OBJECTIVE.tail_weight:g} (TTFT / SLO)^2 + TBT excess"


class Cost(NamedTuple):
    """The result of a setting: mean cost per request, and share of requests that met both SLOs."""

    cost: float
    attainment: float


Place = tuple[Recipe, ClusterConfig, int]
"""Requests, the cluster that they meet, and a seed for rules that draw random numbers."""


@dataclass(frozen=True)
class TuningRun(Task):
    """A run of one setting: a policy with its knobs, on the requests of a `Place`; the result is a Cost.

    All requests count and are played to their end; a rejected request has waited until then.
    """

    setting: PolicySpec
    requests: Recipe
    config: ClusterConfig
    seed: int = 0
    objective: Objective = TUNING_OBJECTIVE

    def __str__(self) -> str:
        return f"tuning {self.setting.text}"

    def inputs(self) -> Workload:
        """The requests."""
        return made(self.requests)

    def run(self, inputs: Workload) -> Result:
        """Simulate, and compute the cost."""
        result = simulate(inputs, self.setting.make(self.seed), self.config)
        met = Attainment.of(as_array(result.records), inputs.ttft_slo_s, inputs.tbt_slo_s)
        return Result([self.objective.of_result(result, inputs) / len(inputs), float(met.both.mean())], {})


def tune_rules(
    rules: Sequence[PolicySpec], places: Sequence[Place], count: int, cache: Cache
) -> dict[PolicySpec, dict[PolicySpec, Cost]]:
    """The mean cost of at most `count` settings of each rule over the same runs; those finished already are not run."""
    tried = {rule: settings(rule, count) for rule in rules}
    every = [setting for several in tried.values() for setting in several]
    runs = [TuningRun(setting, *place) for place in places for setting in every]
    found: dict[PolicySpec, list[Cost]] = {}
    for run, entry in zip(runs, cache.run(runs, "tuning runs"), strict=True):
        found.setdefault(run.setting, []).append(Cost(*entry.value))
    return {
        rule: {setting: Cost(*np.mean(found[setting], axis=0).tolist()) for setting in several}
        for rule, several in tried.items()
    }


def best(tried: Mapping[PolicySpec, Cost]) -> PolicySpec:
    """The setting with the least cost among those whose attainment is within a point of the best.

    A gap that exceeds its SLO by a hair costs next to nothing and is a miss all the same.
    """
    enough = max(one.attainment for one in tried.values()) - ATTAINMENT_MARGIN
    return min([one for one, cost in tried.items() if cost.attainment >= enough], key=lambda one: tried[one].cost)


def made_for(config: ClusterConfig, slos: Slos) -> dict[str, object]:
    """The conditions that knobs are tuned for; report ages and other options may differ, so that they can be varied."""
    return {
        "profile": config.profile.name,
        "profile_digest": fingerprint.profile(config.profile),
        "cluster": config.shape,
        "step_budget": config.step_budget,
        "slos": [asdict(one) for one in slos.classes],
    }


@dataclass(frozen=True)
class TunedSettings:
    """A set of settings that were tuned for the same conditions, as `experiments.tune` wrote it into a file."""

    path: Path
    contents: Mapping[str, Any]

    @classmethod
    def read_all(cls, path: Path) -> "list[TunedSettings]":
        """Read the sets of a file, of the file in a folder of `experiments.tune`, or of SHIPPED for "shipped".

        A file has one set, or several after `tune --join`. Raises InputError (another file, or a damaged one).
        """
        path = SHIPPED if str(path) == "shipped" else path / "tuned.json" if path.is_dir() else path
        try:
            read = json.loads(path.read_bytes())
            sets = [cls(path, contents) for contents in (read if isinstance(read, list) else [read])]
            for one in sets:
                one.about(), one.costs(), one.contents["profile_digest"]  # each fails if it is damaged
        except (ValueError, LookupError, TypeError, AttributeError):
            sets = []
        if not sets:
            raise InputError(f"{path}: not a file that experiments.tune wrote, a damaged one, or one of an old version")
        return sets

    @classmethod
    def read(cls, path: Path) -> "TunedSettings":
        """Read a file that has a single set; see `read_all`. Raises InputError (several sets, or what that raises)."""
        sets = cls.read_all(path)
        if len(sets) > 1:
            raise InputError(f"{sets[0].path}: has settings for {_listed(sets)}; give a file for one of these")
        return sets[0]

    @classmethod
    def read_for(cls, path: Path, config: ClusterConfig, slos: Slos, *, any_shape: bool = False) -> "TunedSettings":
        """Read the set that was tuned for a cluster and SLOs; see `read_all`.

        With `any_shape`, a set for another shape of the cluster serves if there is none for this one. Raises InputError
        (no set fits; the text names the difference, or the conditions for which there are sets).
        """
        sets = cls.read_all(path)
        for one in sorted(sets, key=lambda one: one.contents["cluster"] != config.shape):
            if one._difference(one._asked(config, slos, any_shape)) is None:
                return one
        for one in sets:
            asked = one._asked(config, slos, any_shape)
            # Two connectors, for example, are the same in words.
            if len(sets) == 1 or one.conditions == _in_words(asked):
                raise InputError(f"{one.path}: tuned for {one._difference(asked)}")
        asked = sets[0]._asked(config, slos, any_shape)
        given = " with ".join(_in_words(asked))
        raise InputError(f"{sets[0].path}: nothing was tuned for {given}; there are settings for {_listed(sets)}")

    @property
    def chosen(self) -> dict[str, str]:
        """The setting of each policy."""
        return {name: str(found["chosen"]) for name, found in self.contents["policies"].items()}

    def costs(self) -> dict[str, Cost]:
        """The cost of the setting of each policy."""
        return {name: _cost(found, found["chosen"]) for name, found in self.contents["policies"].items()}

    @property
    def conditions(self) -> tuple[str, str]:
        """The cluster and the SLOs that the settings were tuned for, in words."""
        return _in_words(self.contents)

    def _asked(self, config: ClusterConfig, slos: Slos, any_shape: bool) -> dict[str, object]:
        """The conditions to compare with those of this set."""
        shape = {"cluster": self.contents["cluster"]} if any_shape else {}
        return {**made_for(config, slos), **shape}

    def _difference(self, asked: Mapping[str, object]) -> str | None:
        """The first difference between the conditions of this set and others; None if there is none."""
        for name, value in asked.items():
            if self.contents[name] != value:
                what = "a profile or connector of digest" if name == "profile_digest" else name
                return f"{what} {self.contents[name]}, not {value}"
        return None

    def of(self, spec: PolicySpec) -> PolicySpec:
        """The same policy with its tuned setting, under the same label; InputError if its knobs were not tuned.

        A rule that was tuned only as several policies, each with some knobs fixed, gets the best of their settings.
        """
        names = [spec.text] if spec.text in self.chosen else []
        if spec.text in tunable() and not names:
            names = [name for name in self.chosen if PolicySpec.parse(name).rule == spec.rule]
            if not names:
                raise InputError(f"{self.path}: {spec.text} was not tuned; tune it too, or name it with its knobs")
        if spec.alias or not names:
            return spec
        costs = self.costs()
        tuned = best({PolicySpec.parse(self.chosen[name]): costs[name] for name in names})
        return tuned if spec.params else PolicySpec(spec.rule, tuned.rule, tuned.params, None)

    @property
    def budget(self) -> str:
        """The effort spent on each rule, as part of a sentence."""
        budget, seeds = self.contents["budget"], self.contents["seeds"]
        return (
            f"up to {budget['settings']} settings of each policy, {budget['runs_per_setting']} runs of "
            f"{budget['requests_per_run']} requests each, seeds {min(seeds)} to {max(seeds)}, on which nothing is "
            "evaluated"
        )

    def about(self) -> str:
        """A line that says what was tuned, for which conditions, and how."""
        knobs = "; ".join(f"{name} {setting.partition(':')[2]}" for name, setting in self.chosen.items())
        return f"knobs tuned ({self.path.name}: for {' with '.join(self.conditions)}; {self.budget}): {knobs}"

    def compact(self) -> dict[str, Any]:
        """The contents, with the costs of only two settings of each policy: the chosen one and the default.

        Raises InputError (the default was not tried: knobs have changed since).
        """
        policies = {}
        for name, entry in self.contents["policies"].items():
            try:
                base = entry.get("default") or _cost(entry, default(PolicySpec.parse(name)).text)._asdict()
            except LookupError:
                raise InputError(f"{self.path}: the default of {name} was not tried; tune it again") from None
            policies[name] = {"chosen": entry["chosen"], **self.costs()[name]._asdict(), "default": base}
        return {**self.contents, "policies": policies}


def join(paths: Sequence[Path], target: Path) -> list[dict[str, Any]]:
    """The sets of all these files or folders, compact, as the contents of `target` for `TunedSettings.read_for`.

    Raises InputError (two sets are for the same conditions, `target` is among the files, or what `read_all` and
    `compact` raise).
    """
    found: dict[tuple[object, ...], TunedSettings] = {}
    for one in [one for path in paths for one in TunedSettings.read_all(path)]:
        if one.path.resolve() == target.resolve():
            raise InputError(f"{target}: is one of the files to join; give another --out")
        key = (*one.conditions, one.contents["profile_digest"])
        if key in found:
            raise InputError(f"{found[key].path} and {one.path}: both were tuned for {' with '.join(one.conditions)}")
        found[key] = one
    return [one.compact() for one in found.values()]


def _cost(entry: Mapping[str, Any], setting: str) -> Cost:
    """The cost of one setting of a policy in a file. Raises LookupError (it was not tried)."""
    tried = {one["policy"]: one for one in entry["tried"]} if "tried" in entry else {entry["chosen"]: entry}
    return Cost(float(tried[setting]["cost"]), float(tried[setting]["attainment"]))


def _in_words(made: Mapping[str, Any]) -> tuple[str, str]:
    """The cluster and the SLOs of `made_for`."""
    slos = Slos(tuple([SloClass(**one) for one in made["slos"]]))
    return f"{made['profile']}, {made['cluster']}, step budget {made['step_budget']}", str(slos)


def _listed(sets: Sequence[TunedSettings]) -> str:
    """The conditions of sets: each cluster once, with its SLOs."""
    found: dict[str, list[str]] = {}
    for one in sets:
        cluster, slos = one.conditions
        found.setdefault(cluster, []).append(slos)
    return "; ".join(f"{cluster} with {' or '.join(slos)}" for cluster, slos in found.items())
