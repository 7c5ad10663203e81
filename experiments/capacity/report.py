"""The tables of `experiments.capacity`: goodput, the best split, and the prefill nodes that a policy saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.cluster import parse_shape
from experiments import statistics
from experiments.groups import BASE
from experiments.illustrate import Picture
from experiments.knee import Knee
from experiments.markdown import bullets, figure, table
from experiments.printed import name, with_interval
from experiments.statistics import Floats, Interval


@dataclass(frozen=True)
class Capacity:
    """What one policy carries on one split.

    Attributes:
        policy: its name.
        split: such as 2P2D.
        gpus: of the cluster.
        knees: one a seed; the seeds are the same for all.
    """

    policy: str
    split: str
    gpus: int
    knees: tuple[Knee, ...]

    @cached_property
    def rates_rps(self) -> Floats:
        """The highest rate of each seed, requests per second, shape (seeds,)."""
        return np.array([knee.rate_rps for knee in self.knees])

    @property
    def mean_rps(self) -> float:
        """Mean over seeds."""
        return float(self.rates_rps.mean())

    @property
    def prefill_nodes(self) -> int:
        """P of the split."""
        return parse_shape(self.split)[0]

    @property
    def decode_nodes(self) -> int:
        """D of the split."""
        return parse_shape(self.split)[1]

    @property
    def nodes(self) -> int:
        """Both."""
        return sum(parse_shape(self.split))

    @property
    def dipped(self) -> bool:
        """Whether for some seed the target was missed at a lower rate, too."""
        return any(knee.dipped for knee in self.knees)

    @property
    def per_gpu_rps(self) -> Interval:
        """Goodput, requests per second and GPU."""
        return statistics.mean_interval(self.rates_rps / self.gpus)


@dataclass(frozen=True)
class Saving:
    """How few prefill nodes a policy needs for what `static` carries.

    Attributes:
        policy: which.
        base: what static carries, and on which split.
        needs: where the policy carries as much with the fewest prefill nodes; None: nowhere that was searched.
        ratio: its rate over static's, paired.
    """

    policy: str
    base: Capacity
    needs: Capacity | None
    ratio: Interval | None

    @property
    def prefill_nodes(self) -> int | None:
        """Prefill nodes fewer than static's; None where it nowhere carries as much."""
        return None if self.needs is None else self.base.prefill_nodes - self.needs.prefill_nodes


def of(found: Sequence[Capacity], policy: str) -> list[Capacity]:
    """The capacities of one policy."""
    return [one for one in found if one.policy == policy]


def named(found: Sequence[Capacity]) -> list[str]:
    """The policies, in order."""
    return list(dict.fromkeys(one.policy for one in found))


def best(found: Sequence[Capacity]) -> Capacity:
    """The largest; of equals the one with the fewest prefill nodes."""
    return max(found, key=lambda one: (one.mean_rps, -one.prefill_nodes))


def _saving(policy: str, base: Capacity, among: Sequence[Capacity]) -> Saving:
    enough = [one for one in among if one.mean_rps >= base.mean_rps]
    needs = min(enough, key=lambda one: (one.prefill_nodes, -one.mean_rps), default=None)
    ratio = None if needs is None else statistics.ratio_interval(needs.rates_rps, base.rates_rps)
    return Saving(policy, base, needs, ratio)


def savings_of_total(found: Sequence[Capacity]) -> list[Saving]:
    """At the same number of nodes: the fewest prefill nodes that carry what static carries on its best split."""
    savings = []
    for nodes in sorted({one.nodes for one in of(found, BASE)}):
        alike = [one for one in found if one.nodes == nodes]
        base = best(of(alike, BASE))
        savings += [_saving(policy, base, of(alike, policy)) for policy in named(alike) if policy != BASE]
    return savings


def savings_at_decode_nodes(found: Sequence[Capacity]) -> list[Saving]:
    """At the same number of decode nodes: the fewest prefill nodes that carry what static carries with more of them.

    Only where splits with fewer prefill nodes were searched.
    """
    savings = []
    for base in of(found, BASE):
        alike = [one for one in found if one.decode_nodes == base.decode_nodes]
        if any(one.prefill_nodes < base.prefill_nodes for one in alike):
            savings += [_saving(policy, base, of(alike, policy)) for policy in named(alike) if policy != BASE]
    return savings


def _two(interval: Interval) -> str:
    """Two decimals, with the interval."""
    return with_interval(interval, "{:.2f}".format, least=0.0)


def goodput_table(found: Sequence[Capacity]) -> str:
    """Goodput per GPU, a row a split and a column a policy."""
    rows = []
    for split in dict.fromkeys(one.split for one in found):
        on_split = {one.policy: one for one in found if one.split == split}
        cells = [_two(one.per_gpu_rps) + ("*" if one.dipped else "") for one in on_split.values()]
        rows.append([split, *cells])
    return table(["split", *(name(policy) for policy in named(found))], rows)


def best_table(found: Sequence[Capacity]) -> str:
    """Each policy's best split of each number of nodes, beside the best of static."""
    rows = []
    for nodes in sorted({one.nodes for one in found}):
        alike = [one for one in found if one.nodes == nodes]
        base = best(of(alike, BASE)) if of(alike, BASE) else None
        for policy in named(alike):
            top = best(of(alike, policy))
            ratio = statistics.ratio_interval(top.rates_rps, base.rates_rps) if base and base.mean_rps else None
            against = "none" if ratio is None else _two(ratio)
            rows.append([str(nodes), name(policy), top.split, _two(top.per_gpu_rps), against])
    return table(["nodes", "policy", "best split", "goodput (req/s/GPU)", f"over the best of {name(BASE)}"], rows)


def saving_table(savings: Sequence[Saving]) -> str:
    """A row a saving."""
    rows = []
    for one in savings:
        base = [name(one.policy), one.base.split, f"{one.base.mean_rps:.2f}"]
        if one.needs is None or one.ratio is None:
            rows.append([*base, "none of those searched", "none", "none", "none"])
        else:
            sure = "yes" if one.ratio.low >= 1 else "no"
            rows.append([*base, one.needs.split, _two(one.ratio), f"{one.prefill_nodes:d}", sure])
    header = ["policy", f"{name(BASE)} on", "carries (req/s)", "the policy needs", "its rate over static's"]
    return table([*header, "prefill nodes saved", "interval at or above 1"], rows)


def summary(found: Sequence[Capacity], about: Sequence[str], picture: Picture, made_by: Sequence[str]) -> str:
    """The text of summary.md.

    Args:
        found: every policy on every split.
        about: what was run, a line of Markdown each.
        picture: the heat map.
        made_by: the foot, see `provenance.made_by`.
    """
    shown = figure(f"figures/{picture.path.name}", picture.alt, picture.caption)
    sections = [
        ("# Capacity by policy and split", bullets(about)),
        (
            "## Goodput, requests per second and GPU",
            f"{shown}\n\nA star: for some seed the target was missed at a lower rate that was tried, so attainment "
            f"does not fall steadily there.\n\n{goodput_table(found)}",
        ),
        (
            "## The best split of each number of nodes",
            "Splits are chosen by the means that are shown, for every policy alike.\n\n" + best_table(found),
        ),
    ]
    if savings := savings_of_total(found):
        sections.append(
            (
                "## Prefill nodes saved, at the same number of nodes",
                f"The fewest prefill nodes with which a policy carries at least what {name(BASE)} carries on its best "
                "split; the prefill nodes saved are decode nodes then.\n\n" + saving_table(savings),
            )
        )
    if savings := savings_at_decode_nodes(found):
        sections.append(
            (
                "## Prefill nodes saved, at the same number of decode nodes",
                f"The fewest prefill nodes with which a policy carries at least what {name(BASE)} carries with the "
                "same decode nodes; the prefill nodes saved are machines saved. Clusters that were not searched are "
                "not considered.\n\n" + saving_table(savings),
            )
        )
    sections.append(("## How this was made", bullets(made_by)))
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections) + "\n"
