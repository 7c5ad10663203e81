"""Tuning rules: what a setting costs, which setting is best, and the file of tuned settings.

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
from envs.slos import Slos
from envs.workload import Workload
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.analysis.request_table import Attainment, as_array
from experiments.runs import fingerprint
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.requests import Recipe, made
from experiments.runs.search_space import settings, tunable
from hardware_profiles import InputError
from policies import PolicySpec

SETTINGS = 18
SHIPPED = Path(policies.__file__).with_name("shipped_settings.json")
"""Settings that ship with the project; the file names the command that tuned them."""
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
    """A file of tuned settings, with contents as `experiments.tune` wrote them."""

    path: Path
    contents: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "TunedSettings":
        """Read a file, that in a folder of `experiments.tune`, or SHIPPED for "shipped"; InputError if it is none."""
        path = SHIPPED if str(path) == "shipped" else path / "tuned.json" if path.is_dir() else path
        try:
            found = cls(path, json.loads(path.read_bytes()))
            found.about()
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{path}: not a file that experiments.tune wrote, or a damaged one") from None
        return found

    @property
    def chosen(self) -> dict[str, str]:
        """The setting of each policy."""
        return {name: str(found["chosen"]) for name, found in self.contents["policies"].items()}

    def check(self, config: ClusterConfig, slos: Slos) -> None:
        """Raise InputError, which names the difference, for other conditions than the knobs were tuned for."""
        contents = dict(self.contents)
        if "slos" not in contents:  # a file of version 0.1.0, when there were two numbers
            old = Slos.of(contents["ttft_slo_s"], contents["tbt_slo_s"])
            contents["slos"] = made_for(config, old)["slos"]
        for name, value in made_for(config, slos).items():
            if contents[name] != value:
                what = "a profile or connector of digest" if name == "profile_digest" else name
                raise InputError(f"{self.path}: tuned for {what} {contents[name]}, not {value}")

    def of(self, spec: PolicySpec) -> PolicySpec:
        """The same policy with its tuned setting, under the same label; InputError if its knobs were not tuned."""
        if spec.text in tunable() and spec.text not in self.chosen:
            raise InputError(f"{self.path}: {spec.text} was not tuned; tune it too, or name it with its knobs")
        if spec.alias or spec.text not in self.chosen:
            return spec
        tuned = PolicySpec.parse(self.chosen[spec.text])
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
        """A line that says what was tuned, and how."""
        knobs = "; ".join(f"{name} {setting.partition(':')[2]}" for name, setting in self.chosen.items())
        return f"knobs tuned ({self.path.name}: {self.budget}): {knobs}"
