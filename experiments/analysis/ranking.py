"""Which policy is best: ties within a cell, and the virtual best of the rules over cells.

A cell is a workload at a load. Best among the policies that a router could run: a clairvoyant one is a bound, and never
called best. Within a cell every policy is compared with the best by simultaneous intervals (see `bootstrap`), so the
chance that any policy is wrongly called worse is about 5 % per cell, however many policies there are.
"""

from typing import NamedTuple

import numpy as np

from experiments.analysis import bootstrap
from experiments.analysis.bootstrap import Interval
from experiments.analysis.comparison import Group, Groups, Runs, verdict
from experiments.analysis.metrics import ATTAINMENT_MARGIN, METRIC

RATIO_MARGIN, POINTS_MARGIN = 0.02, 0.005
"""Non-inferior, by whole intervals: P95 TTFT at most this share above the virtual best, SLO attainment at most this
much below it. Not from a paper."""


class Ranking(NamedTuple):
    """The best policy of a cell by one metric, and how every other one compares with it (see `Runs.change`).

    Policies that are not significantly worse are tied; none if there are too few seeds to say so.
    """

    best: str
    tied: list[str]
    changes: dict[str, Interval]
    enough_seeds: bool


def rank(group: Group, metric: str) -> Ranking:
    """Rank the policies of a cell; of equals the one with the lowest P95 TTFT is best."""
    sign = 1 if METRIC[metric].better == "lower" else -1
    fair = [label for label, runs in group.items() if not runs.policy.clairvoyant] or list(group)
    best = min(fair, key=lambda label: (sign * group[label].mean(metric), group[label].mean("ttft_p95_s")))
    base, latency = group[best].estimate(metric), METRIC[metric].is_latency
    units = group[best].units(metric)
    others = {label: group[label].estimate(metric) for label in fair if label != best}
    changed = [one.over(base) if latency else one.minus(base) for one in others.values()]
    changes = dict(zip(others, bootstrap.simultaneous(changed, log=latency), strict=True))
    tied = [label for label, change in changes.items() if verdict(change, metric, units) == "tied"]
    return Ranking(best, tied, changes, units >= bootstrap.FEWEST_UNITS)


def virtual_best(group: Group) -> Runs | None:
    """The rule with the lowest P95 TTFT among those within a point of the highest SLO attainment of any rule.

    Learned and clairvoyant policies are no rules. None if there is no rule.
    """
    rules = [runs for runs in group.values() if not (runs.policy.learned or runs.policy.clairvoyant)]
    if not rules:
        return None
    enough = max(runs.mean("slo_attainment") for runs in rules) - ATTAINMENT_MARGIN
    usable = [runs for runs in rules if runs.mean("slo_attainment") >= enough]
    return min(usable, key=lambda runs: runs.mean("ttft_p95_s"))


class AgainstBest(NamedTuple):
    """One policy against the virtual best of every cell.

    Attributes:
        ratio: geometric mean over cells of its P95 TTFT over that of the virtual best.
        at_or_below: cells in which its mean is at or below.
        non_inferior: cells in which the intervals keep both margins.
        worst: the largest ratio of means, minus 1: the worst-cell regret, in `worst_cell`.
        worst_points: the largest loss of SLO attainment, as a difference (0 or less).
    """

    ratio: Interval
    at_or_below: int
    non_inferior: int
    worst: float
    worst_cell: tuple[str, float]
    worst_points: float


def against_virtual_best(groups: Groups, policy: str) -> AgainstBest | None:
    """Compare a policy with the virtual best of every cell; None if a cell has no rule."""
    pairs = [(key, group[policy], virtual_best(group)) for key, group in groups.items()]
    known = [(key, runs, base) for key, runs, base in pairs if base is not None]
    if len(known) < len(pairs):
        return None
    ratios = {key: runs.ratio("ttft_p95_s", base) for key, runs, base in known}
    points = [runs.difference("slo_attainment", base) for _, runs, base in known]
    close = [
        runs is base or (ratio.high <= 1 + RATIO_MARGIN and difference.low >= -POINTS_MARGIN)
        for (_, runs, base), ratio, difference in zip(known, ratios.values(), points, strict=True)
    ]
    values = np.stack([runs.column("ttft_p95_s") for _, runs, _ in known], axis=1)
    bases = np.stack([base.column("ttft_p95_s") for *_, base in known], axis=1)
    worst_cell = max(ratios, key=lambda key: ratios[key].value)
    return AgainstBest(
        ratio=bootstrap.stratified(bootstrap.geometric_mean_ratio, values, bases).interval(log=True),
        at_or_below=sum(ratio.value <= 1 for ratio in ratios.values()),
        non_inferior=sum(close),
        worst=ratios[worst_cell].value - 1,
        worst_cell=worst_cell,
        worst_points=min(0.0, *(difference.value for difference in points)),
    )
