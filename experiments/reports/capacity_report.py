"""The report of `experiments.capacity`: goodput, the best split, and the prefill nodes that a policy saves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.cluster import parse_shape
from experiments.analysis.bootstrap import Floats, Interval, seed_mean
from experiments.analysis.comparison import BASE
from experiments.reports.columns import Column, bullets, code, each, table
from experiments.reports.document import Picture, Section, for_console, write_report
from experiments.reports.figures.capacity_figures import heat_map
from experiments.reports.formatting import counted, name, with_interval
from experiments.runs.saturation import Knee
from policies import PolicySpec


class Capacity(NamedTuple):
    """The load that one policy carries on one split, such as 2P2D: one knee per seed, of the same seeds for all."""

    policy: PolicySpec
    split: str
    gpus: int
    knees: tuple[Knee, ...]

    @property
    def rates_rps(self) -> Floats:
        """The highest rate of each seed, requests per second, shape (seeds,)."""
        return np.array([knee.rate_rps for knee in self.knees])

    @property
    def mean_rps(self) -> float:
        """Mean over seeds."""
        return float(self.rates_rps.mean())

    @property
    def nodes(self) -> tuple[int, int]:
        """Prefill and decode nodes."""
        return parse_shape(self.split)

    @property
    def per_gpu_rps(self) -> Interval:
        """Goodput, requests per second and GPU."""
        return seed_mean(self.rates_rps / self.gpus).interval(log=self.rates_rps.min() > 0)

    def over(self, base: "Capacity | None") -> Interval | None:
        """Its rate over that of another, paired; None without another, or if that carries nothing for some seed."""
        if base is None or not base.rates_rps.all():
            return None
        return seed_mean(self.rates_rps).over(seed_mean(base.rates_rps)).interval(log=self.rates_rps.min() > 0)


class Saving(NamedTuple):
    """The split with the fewest prefill nodes on which a policy carries what `static` carries on `base`, if any."""

    policy: PolicySpec
    base: Capacity
    needs: Capacity | None

    @property
    def ratio(self) -> Interval | None:
        """The policy's rate over static's, paired."""
        return self.needs and self.needs.over(self.base)


def _groups(found: Iterable[Capacity], key: Callable[[Capacity], Any]) -> list[list[Capacity]]:
    groups: dict[Any, list[Capacity]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def _by_policy(found: Sequence[Capacity]) -> list[list[Capacity]]:
    return _groups(found, lambda one: one.policy)


def _by_total(found: Sequence[Capacity]) -> list[list[Capacity]]:
    """By number of nodes, ascending."""
    return _groups(sorted(found, key=lambda one: sum(one.nodes)), lambda one: sum(one.nodes))


def _base(found: Sequence[Capacity]) -> list[Capacity]:
    return [one for one in found if one.policy.label == BASE]


def _top(found: Sequence[Capacity]) -> Capacity | None:
    """The largest; of equals the one with the fewest prefill nodes."""
    return max(found, key=lambda one: (one.mean_rps, -one.nodes[0]), default=None)


def _savings(base: Capacity | None, alike: Sequence[Capacity]) -> Iterator[Saving]:
    """For every other policy, the fewest prefill nodes among `alike` that carry at least what `base` does."""
    for several in _by_policy(alike):
        policy = several[0].policy
        if base and policy != base.policy:
            enough = [one for one in several if one.mean_rps >= base.mean_rps]
            yield Saving(policy, base, min(enough, key=lambda one: (one.nodes[0], -one.mean_rps), default=None))


def savings_of_total(found: Sequence[Capacity]) -> list[Saving]:
    """At the same number of nodes: the fewest prefill nodes that carry what static carries on its best split."""
    return [saving for alike in _by_total(found) for saving in _savings(_top(_base(alike)), alike)]


def savings_at_decode_nodes(found: Sequence[Capacity]) -> list[Saving]:
    """At the same number of decode nodes: the fewest prefill nodes that carry what static carries with more of them.

    Only if splits with fewer prefill nodes were searched.
    """
    return [
        saving
        for alike in _groups(found, lambda one: one.nodes[1])
        for base in _base(alike)
        if any(one.nodes[0] < base.nodes[0] for one in alike)
        for saving in _savings(base, alike)
    ]


def _two(interval: Interval | None) -> str:
    """Two decimals, with the interval."""
    return "none" if interval is None else with_interval(interval, "{:.2f}".format, least=0.0)


def goodput_table(found: Sequence[Capacity]) -> str:
    """Goodput per GPU, one row per split and one column per policy."""

    def cell(policy: int, split: list[Capacity]) -> str:
        one = split[policy]
        return _two(one.per_gpu_rps) + ("*" if any(knee.dipped for knee in one.knees) else "")

    splits = _groups(found, lambda one: one.split)  # each with the same policies, in the same order
    policies = each({name(one.policy): number for number, one in enumerate(splits[0])}, cell)
    return table([Column("split", lambda split: split[0].split, left=True), *policies], splits)


def best_table(found: Sequence[Capacity]) -> str:
    """Each policy's best split of each number of nodes, next to the best of static."""
    best = [(_top(of), _top(_base(alike))) for alike in _by_total(found) for of in _by_policy(alike)]
    columns: list[Column[tuple[Capacity, Capacity | None]]] = [
        Column("nodes", lambda row: f"{sum(row[0].nodes)}", left=True),
        Column("policy", lambda row: name(row[0].policy)),
        Column("best split", lambda row: row[0].split),
        Column("goodput (req/s/GPU)", lambda row: _two(row[0].per_gpu_rps)),
        Column(f"over the best of {code(BASE)}", lambda row: _two(row[0].over(row[1]))),
    ]
    return table(columns, [(top, base) for top, base in best if top])


def saving_table(savings: Sequence[Saving]) -> str:
    """One row per saving."""
    columns: list[Column[Saving]] = [
        Column("policy", lambda one: name(one.policy), left=True),
        Column(f"{code(BASE)} on", lambda one: one.base.split),
        Column("carries (req/s)", lambda one: f"{one.base.mean_rps:.2f}"),
        Column("the policy needs", lambda one: one.needs.split if one.needs else "none of those searched"),
        Column("its rate over static's", lambda one: _two(one.ratio)),
        Column("prefill nodes saved", lambda one: f"{one.base.nodes[0] - one.needs.nodes[0]}" if one.needs else "none"),
        Column("interval at or above 1", lambda one: ("yes" if one.ratio.low >= 1 else "no") if one.ratio else "none"),
    ]
    return table(columns, savings)


def write_capacity(found: Sequence[Capacity], title: str, about: Sequence[str], made_by: str, folder: Path) -> str:
    """Write summary.md, report.html and the figure, called `title`, and return the main tables, to print.

    For the other arguments see `write_comparison`.
    """
    caption = (
        "Goodput per GPU: policies by splits of the nodes into prefill and decode. Bold is the best of a split. "
        f"Means of {counted(len(found[0].knees), 'seed')}."
    )
    values = {(one.policy, one.split): one.per_gpu_rps.value for one in found}
    picture = Picture("capacity", heat_map(values, title), "goodput per GPU by policy and split", caption)
    star = (
        "A star: for some seed the target was missed at a lower rate that was tried, so attainment does not fall "
        "steadily there."
    )
    chosen = "Splits are chosen by the means that are shown, for every policy alike."
    fewest = f"The fewest prefill nodes with which a policy carries at least what {code(BASE)} carries"
    of_total = f"{fewest} on its best split; the prefill nodes saved are decode nodes then."
    at_decode_nodes = (
        f"{fewest} with the same decode nodes; the prefill nodes saved are machines saved. Clusters that were not "
        "searched are not considered."
    )
    goodput, best, total = goodput_table(found), best_table(found), saving_table(savings_of_total(found))
    decode = saving_table(savings_at_decode_nodes(found))
    saved = "## Prefill nodes saved, at the same number of"
    sections: list[Section] = [
        ("", [bullets(about)]),
        ("## Goodput, requests per second and GPU", [picture, star, goodput]),
        ("## The best split of each number of nodes", [chosen, best]),
        (f"{saved} nodes", [of_total, total] if total else []),
        (f"{saved} decode nodes", [at_decode_nodes, decode] if decode else []),
        ("## How this was made", [made_by]),
    ]
    write_report("Capacity by policy and split", sections, folder)
    return for_console(goodput, best, total)
