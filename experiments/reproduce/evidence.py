"""What `experiments.reproduce` found, and the numbers that claims are held against.

A claim says "up to": the best of many cells. The best of many noisy cells looks better than it is, so it is chosen on
one half of the seeds and measured on the other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from experiments import statistics
from experiments.groups import BASE, Group
from experiments.reproduce.settings import Setting
from experiments.statistics import Interval

KAIROS = "kairos"
BURSTY = "burst"
"""The family that is run at many loads and on stressed clusters, and whose tail is taken apart."""


class Place(NamedTuple):
    """One set of requests on one cluster."""

    setting: Setting
    family: str
    load: float


@dataclass(frozen=True)
class Evidence:
    """Everything that was run.

    Attributes:
        groups: the runs of every policy at each place.
        rules: policies of the main cells, by place but for the tuned one.
        tuned: `kairos` with its knobs tuned, by machine and link (`Setting.plain`).
        knees: of `static`, requests per second, by setting and family; 0 where it misses the target at every rate.
        loads: of the main cells.
        seeds: of each cell.
    """

    groups: Mapping[Place, Group]
    rules: tuple[str, ...]
    tuned: Mapping[Setting, str]
    knees: Mapping[tuple[Setting, str], float]
    loads: tuple[float, ...]
    seeds: int

    @property
    def shown_load(self) -> float:
        """The load that stands for all in tables of one load."""
        return shown_load(self.loads)

    def rules_at(self, place: Place) -> list[str]:
        """The main policies of a place; others there were run for ablations."""
        return [*self.rules, self.tuned_at(place)]

    def tuned_at(self, place: Place) -> str:
        """The tuned form of kairos."""
        return self.tuned[place.setting.plain]

    def forms(self) -> dict[str, Callable[[Place], str]]:
        """`kairos` with the paper's defaults, and with its knobs tuned, by place."""
        return {"its defaults": lambda _: KAIROS, "tuned": self.tuned_at}

    def main(self, settings: Sequence[Setting], families: Sequence[str]) -> list[Place]:
        """The places of these settings and families at the main loads, where there are runs."""
        places = [Place(*key) for key in product(settings, families, self.loads)]
        return [place for place in places if place in self.groups]

    def by_load(self, setting: Setting, family: str) -> list[Place]:
        """The places of a cluster and family, by load."""
        return sorted((place for place in self.groups if place[:2] == (setting, family)), key=lambda place: place.load)


def shown_load(loads: Sequence[float]) -> float:
    """The highest load not above 1, the knee; else the lowest."""
    return max((load for load in loads if load <= 1), default=min(loads))


def _of(group: Group, name: str, column: str, seeds: slice) -> statistics.Floats:
    return group[name].column(column)[seeds]


def cut(group: Group, policy: str, seeds: slice = slice(None), base: str = BASE) -> Interval:
    """P95 TTFT over that of the base, on the same requests."""
    return statistics.ratio_interval(_of(group, policy, "ttft_p95_s", seeds), _of(group, base, "ttft_p95_s", seeds))


def gain(group: Group, policy: str, seeds: slice = slice(None), base: str = BASE) -> Interval:
    """SLO attainment over that of the base, on the same requests; nan where the base has none in some run."""
    met, base_met = (_of(group, name, "slo_attainment", seeds) for name in (policy, base))
    return statistics.ratio_interval(met, base_met) if base_met.all() else Interval(np.nan, np.nan, np.nan)


def points(group: Group, policy: str, seeds: slice = slice(None), base: str = BASE) -> Interval:
    """SLO attainment less that of the base, on the same requests."""
    met, base_met = (_of(group, name, "slo_attainment", seeds) for name in (policy, base))
    return statistics.mean_interval(met - base_met)


def share(group: Group, policy: str, part: str) -> Interval:
    """A part of P95 TTFT (see `metrics.PARTS`) as a share of it, mean over seeds."""
    return statistics.mean_interval(group[policy].column(f"{part}_share_p95"))


def crossing(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """From where on a curve stays at most `level`: interpolated between its points, in order of x; None: nowhere.

    The first x where it is nowhere above.
    """
    above = [i for i, (_, value) in enumerate(curve) if value > level]
    if not above:
        return curve[0][0] if curve else None
    if above[-1] + 1 == len(curve):
        return None
    (x, value), (next_x, next_value) = curve[above[-1] : above[-1] + 2]
    return x + (next_x - x) * (value - level) / (value - next_value)


class Best(NamedTuple):
    """The best of many places.

    Attributes:
        place: chosen on the first half of the seeds.
        seeds: the other half, on which it is to be measured; all of them where there is one.
    """

    place: Place
    seeds: slice


def best(places: Iterable[Place], score: Callable[[Place, slice], float], seeds: int) -> Best:
    """The place with the highest score; nan is the lowest.

    Args:
        places: to choose among; at least one.
        score: of a place over some of its seeds.
        seeds: how many there are.
    """
    half = seeds // 2
    choose, rest = (slice(0, half), slice(half, None)) if half else (slice(None), slice(None))
    return Best(max(places, key=lambda place: np.nan_to_num(score(place, choose), nan=-np.inf)), rest)
