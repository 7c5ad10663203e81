"""Evidence for and against the claims of arXiv 2607.02043: the clusters, the runs on them, and numbers of those runs.

A claim says "up to": the best of many cells. The best of many noisy cells looks better than it is, so it is chosen on
one half of the seeds and measured on the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from envs.cluster import ClusterConfig, parse_shape
from experiments.analysis.bootstrap import Interval
from experiments.analysis.comparison import BASE, Runs, shown_load
from experiments.analysis.metrics import METRIC
from hardware_profiles import load_profile
from policies import PolicySpec

KAIROS = "kairos"
TUNED = "kairos-tuned"
FORMS = {"its defaults": KAIROS, "tuned": TUNED}
"""The paper's rule with the paper's knobs, and with tuned ones."""
BURSTY = "burst"
"""The family that is run at many loads and on stressed clusters, and whose tail is taken apart."""
STARVED = ("1P3D", "3P1D")
SLOW_SPEED = 0.6  # of the slower decode node, relative; not from a paper


@dataclass(frozen=True)
class Setting:
    """A cluster of nodes of one profile, by default in the shape of arXiv 2607.02043.

    With `slow_decode` the last decode node runs at SLOW_SPEED.
    """

    profile: str
    connector: str
    shape: str = "2P2D"
    slow_decode: bool = False
    report_age_s: float = 0.1

    def __str__(self) -> str:
        return f"{self.machine}, {self.kind}"

    @property
    def machine(self) -> str:
        """Profile and link."""
        return f"{self.profile}, {self.connector}"

    @property
    def kind(self) -> str:
        """Shape and speeds."""
        return f"{self.shape}, one decode node at {SLOW_SPEED:g}" if self.slow_decode else self.shape

    @property
    def plain(self) -> "Setting":
        """The same machine and link in the default shape, on which knobs are tuned."""
        return Setting(self.profile, self.connector)

    @property
    def default_age(self) -> "Setting":
        """The same cluster with reports of the default age, whose knee is the unit of loads."""
        return replace(self, report_age_s=Setting.report_age_s)

    @cached_property
    def config(self) -> ClusterConfig:
        """The cluster, with the paper's engine: a fixed token budget, and chunks that the router plans.

        Raises:
            InputError: no such profile, connector or shape.
        """
        speeds = (*[1.0] * (sum(parse_shape(self.shape)) - 1), SLOW_SPEED) if self.slow_decode else None
        profile = load_profile(self.profile).with_connector(self.connector)
        return ClusterConfig(
            profile, shape=self.shape, node_speeds=speeds, report_age_s=self.report_age_s, step_budget="fixed"
        )


def every_machine(profiles: Iterable[str], connectors: Sequence[str]) -> list[Setting]:
    """Each profile over each link, in the default shape."""
    return [Setting(*machine) for machine in product(profiles, connectors)]


def stressed(settings: Iterable[Setting]) -> list[Setting]:
    """Each setting in starved shapes, and with a slower decode node."""
    changes: list[dict[str, Any]] = [*({"shape": shape} for shape in STARVED), {"slow_decode": True}]
    return [replace(setting, **change) for setting, change in product(settings, changes)]


class Place(NamedTuple):
    """One set of requests on one cluster."""

    setting: Setting
    family: str
    load: float

    def __str__(self) -> str:
        return f"{self.family}, load {self.load:g}, {self.setting}"


class SeedRuns(Runs):
    """Runs whose requests are not kept: every estimate is over seeds, and that of one seed has no interval."""

    @cached_property
    def same_requests(self) -> bool:
        """Seeds are resampled, never requests."""
        return False


class Cell(NamedTuple):
    """One policy at one place, next to a base (`static`) on the same requests."""

    place: Place
    runs: SeedRuns
    base: SeedRuns

    def of(self, seeds: slice) -> "Cell":
        """The same cell over some seeds."""
        return Cell(self.place, *(SeedRuns(runs.outcomes[seeds]) for runs in (self.runs, self.base)))

    def ratio(self, metric: str) -> Interval:
        """A metric over that of the base; nan if the base has 0 in some run."""
        if not self.base.column(metric).all():
            return Interval(np.nan, np.nan, np.nan)
        log = bool(self.runs.column(metric).all())  # a share may be 0 in some run, and 0 has no logarithm
        return self.runs.estimate(metric).over(self.base.estimate(metric)).interval(log=log)

    @property
    def points(self) -> Interval:
        """SLO attainment minus that of the base."""
        return self.runs.difference("slo_attainment", self.base)

    @property
    def is_worse(self) -> bool:
        """Whether P95 TTFT is significantly longer, or attainment significantly lower, than with the base."""
        return self.ratio("ttft_p95_s").low > 1 or self.points.high < 0


@dataclass(frozen=True)
class Evidence:
    """Everything that was run.

    Attributes:
        groups: the runs of every policy at each place, by label.
        rules: labels of the policies of the main cells; others were run for ablations.
        tuned: `kairos` with tuned knobs, by machine and link (`Setting.plain`).
        knees: of `static`, requests per second, by setting and family; 0 if it misses the target at every rate, inf if
            it meets it at every rate.
        machines: profiles and links of the main cells; families and loads are theirs too, seeds those of each cell.
    """

    groups: Mapping[Place, Mapping[str, SeedRuns]]
    rules: tuple[str, ...]
    tuned: Mapping[Setting, PolicySpec]
    knees: Mapping[tuple[Setting, str], float]
    machines: tuple[Setting, ...]
    families: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: int

    @property
    def shown_load(self) -> float:
        """The load that stands for all in tables of one load."""
        return shown_load(self.loads)

    @property
    def main(self) -> list[Place]:
        """The main cells that were run."""
        return self.among(self.machines, self.families)

    @property
    def hard(self) -> list[Place]:
        """The cells on stressed clusters that were run."""
        return self.among(stressed(self.machines), [BURSTY])

    @property
    def swept(self) -> dict[Setting, list[Place]]:
        """The bursty family by machine, at every load in order."""
        return {setting: places for setting in self.machines if (places := self.by_load(setting, BURSTY))}

    def among(self, settings: Iterable[Setting], families: Iterable[str]) -> list[Place]:
        """The places of these settings and families at the main loads that were run."""
        places = [Place(*key) for key in product(settings, families, self.loads)]
        return [place for place in places if place in self.groups]

    def by_load(self, setting: Setting, family: str) -> list[Place]:
        """The places of a cluster and family, by load."""
        return sorted([place for place in self.groups if place[:2] == (setting, family)], key=lambda place: place.load)

    def cell(self, place: Place, policy: str, base: str = BASE) -> Cell:
        """A policy at a place."""
        return Cell(place, self.groups[place][policy], self.groups[place][base])

    def cells(self, places: Iterable[Place], policies: Iterable[str]) -> list[Cell]:
        """Every policy at each place."""
        return [self.cell(*key) for key in product(places, policies)]

    def share(self, place: Place, part: str) -> Interval:
        """A part (see `request_table.PARTS`) as a share of the P95 TTFT of `static`, mean over seeds."""
        return self.groups[place][BASE].interval(f"{part}_share_p95")

    @property
    def halves(self) -> tuple[slice, slice]:
        """The seeds on which the best place is chosen, and those on which it is measured; a single seed is for both."""
        half = self.seeds // 2
        return slice(half or None), slice(half, None)

    def largest(self, places: Iterable[Place], policy: str, metric: str) -> Cell:
        """The cell in which a policy improves most on `static`, by the ratio of a metric; nan is the least."""
        sign = -1 if METRIC[metric].better == "lower" else 1
        choose, measure = self.halves
        cells = self.cells(places, [policy])
        scores = [sign * cell.of(choose).ratio(metric).value for cell in cells]
        return cells[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))].of(measure)
