"""What came out: which policy is best where, computed, with intervals, and which ones are not told apart from it.

Best among the policies that a router could run; a clairvoyant one is a bound and stands beside them.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import policies
from experiments.estimates import Runs
from experiments.groups import Group, Groups, base_of, named, shown
from experiments.markdown import bullets, plain
from experiments.printed import change_of, listing, name, percent, share_of, signed, time_of, with_interval
from experiments.statistics import Interval


class Measure(NamedTuple):
    """A number by which policies are set in order.

    Attributes:
        column: of the metrics.
        title: with its unit, for a table.
        best_is: in a sentence.
        less_is_better: whether it is.
        show: it with its interval.
        against: its difference from the base's, with the interval.
    """

    column: str
    title: str
    best_is: str
    less_is_better: bool
    show: Callable[[Interval], str]
    against: Callable[[Runs, Runs], str]


P95 = Measure(
    "ttft_p95_s",
    "TTFT P95 (ms)",
    "lowest P95 TTFT",
    True,
    time_of,
    lambda runs, base: f"{change_of(runs.ttft_p95_ratio(base))} %",
)
ATTAINMENT = Measure(
    "slo_attainment",
    "SLO attainment (%)",
    "highest SLO attainment",
    False,
    share_of,
    lambda runs, base: with_interval(runs.difference("slo_attainment", base), signed(percent), -1, 1) + " points",
)


class Leaders(NamedTuple):
    """The best policy of a group, and those whose paired 95 % interval of the difference from it holds 0."""

    best: str
    tied: list[str]


def leaders(group: Group, measure: Measure) -> Leaders:
    """The leaders by `measure`, without clairvoyant policies; of equals the one with the lowest P95 TTFT is best."""
    sign = 1 if measure.less_is_better else -1
    fair = [policy for policy in group if not policies.clairvoyant(policy)] or list(group)
    best = min(fair, key=lambda policy: (sign * group[policy].mean(measure.column), group[policy].mean(P95.column)))
    apart = {policy: group[policy].difference(measure.column, group[best]) for policy in fair if policy != best}
    return Leaders(best, [policy for policy, difference in apart.items() if not difference.excludes_zero])


def _sentence(group: Group, base: str, measure: Measure, unit: str) -> str:
    best, tied = leaders(group, measure)
    runs = group[best]
    against = "" if best == base else f", {measure.against(runs, group[base])} against {name(base)}"
    also = f"; not told apart from it: {listing([name(policy) for policy in tied])}" if tied else ""
    return f"{measure.best_is} {name(best)}, {measure.show(runs.estimate(measure.column))} {unit}{against}{also}."


def _count(groups: Groups, measure: Measure) -> str:
    counts: Counter[str] = Counter()
    for group in groups.values():
        best, tied = leaders(group, measure)
        counts.update([best, *tied])
    order = sorted((policy for policy in named(groups) if counts[policy]), key=lambda policy: -counts[policy])
    return listing([f"{name(policy)} in {counts[policy]}" for policy in order], most=6)


def _begun(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def came_out(groups: Groups) -> str:
    """The answer first: best and not told apart from it over all groups, then for each group of the overview."""
    if len(named(groups)) < 2:
        return ""
    base = base_of(groups)
    lines = []
    if len(groups) > 1:
        lines += [
            f"**{_begun(measure.best_is)}**, or not told apart from it, in how many of the {len(groups)} pairs of "
            f"workload and load: {_count(groups, measure)}."
            for measure in (P95, ATTAINMENT)
        ]
    for (workload, load), group in shown(groups).items():
        sentences = [_sentence(group, base, P95, "ms"), _sentence(group, base, ATTAINMENT, "%")]
        bounds = [
            f"{name(policy)} {P95.show(group[policy].estimate(P95.column))} ms and "
            f"{ATTAINMENT.show(group[policy].estimate(ATTAINMENT.column))} %"
            for policy in group
            if policies.clairvoyant(policy)
        ]
        if bounds:
            sentences.append(f"for comparison {listing(bounds)}.")
        lines.append(f"**{plain(workload)}, load {load:g}.** {' '.join(map(_begun, sentences))}")
    return bullets(lines)
