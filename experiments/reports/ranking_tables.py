"""Which policy is best: the findings in sentences, and the tables of the overview."""

from functools import partial

import numpy as np

from experiments.analysis.bootstrap import Floats, Interval, interquartile_mean, probability_below, stratified
from experiments.analysis.comparison import Group, Groups, Key
from experiments.analysis.metrics import METRIC
from experiments.analysis.ranking import POINTS_MARGIN, RATIO_MARGIN, Ranking, against_virtual_best, rank, virtual_best
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, code, each, plain, table

_three = partial(show.with_interval, show="{:.3f}".format)
CRITERIA = ("ttft_p95_s", "slo_attainment")
"""Metrics by which policies are ranked."""
VIRTUAL_BEST = (
    "The virtual best is, per cell (a workload at a load), the rule with the lowest P95 TTFT among those whose SLO "
    "attainment is within a point of the highest. It is chosen on the requests that it is measured on, which flatters "
    "it. Regret: by how much a policy's P95 TTFT is above it in its worst cell. Non-inferior: the 95 % intervals of a "
    f"cell keep P95 TTFT within {RATIO_MARGIN:.0%} and attainment within {100 * POINTS_MARGIN:g} points of it. The "
    "margins are not from a paper."
)


def findings(groups: Groups) -> str:
    """The result: best or tied with the best over all cells, then for each cell of the overview."""
    if len(groups.policies) < 2:
        return ""
    lines = [_count(groups, metric) for metric in CRITERIA] if len(groups) > 1 else []
    for key, group in groups.shown.items():
        sentences = [_sentence(group, groups.base, metric) for metric in CRITERIA]
        bounds = [
            f"{_name(groups, label)} has {' and '.join(_estimate(group, label, metric) for metric in CRITERIA)}"
            for label, runs in group.items()
            if runs.policy.clairvoyant
        ]
        sentences += [f"For comparison, {show.listing(bounds)}."] if bounds else []
        lines.append(f"**{_cell(key)}.** {' '.join(sentences)}")
    return bullets(lines)


def _cell(key: Key) -> str:
    return f"{plain(key[0])}, load {key[1]:g}"


def _name(groups: Groups, policy: str) -> str:
    return show.name(next(iter(groups.values()))[policy].policy)


def _policies(groups: Groups) -> Column[str]:
    return Column("policy", lambda policy: _name(groups, policy), left=True)


def _superlative(metric: str) -> str:
    return f"{'Lowest' if METRIC[metric].better == 'lower' else 'Highest'} {METRIC[metric].title}"


def _estimate(group: Group, policy: str, metric: str) -> str:
    unit = "ms" if METRIC[metric].is_latency else "%"
    return f"{show.estimate(metric, group[policy].interval(metric))} {unit}"


def _sentence(group: Group, base: str, metric: str) -> str:
    ranking = rank(group, metric)
    best = show.name(group[ranking.best].policy)
    text = f"{_superlative(metric)}: {best}, {_estimate(group, ranking.best, metric)}"
    if ranking.best != base:
        text += f", {_against_base(ranking, group, base, metric)} against {code(base)}"
    if not ranking.enough_seeds:
        return f"{text}; too few seeds to tell ties."
    return f"{text}; tied with it: {_ties(ranking, group)}." if ranking.tied else f"{text}."


def _count(groups: Groups, metric: str) -> str:
    """In how many cells each policy is best or tied with the best."""
    rankings = [rank(group, metric) for group in groups.values()]
    counts = {policy: sum(policy in (one.best, *one.tied) for one in rankings) for policy in groups.policies}
    order = sorted(filter(counts.get, counts), key=lambda policy: -counts[policy])
    named = [f"{_name(groups, policy)} in {counts[policy]}" for policy in order]
    tied = "or tied with it" if all(one.enough_seeds for one in rankings) else "too few seeds to tell ties"
    return f"**{_superlative(metric)}**, {tied} (of {len(groups)} cells): {show.listing(named, most=6)}."


def _ties(ranking: Ranking, group: Group) -> str:
    """The policies that tie with the best."""
    if not ranking.enough_seeds:
        return "too few seeds"
    return show.listing([show.name(group[policy].policy) for policy in ranking.tied]) or "none"


def _against_base(ranking: Ranking, group: Group, base: str, metric: str) -> str:
    """How the best compares with the base, by the interval that decides whether the base ties."""
    if ranking.best == base:
        return "itself"
    if base not in ranking.changes:
        return show.compared(metric, group[ranking.best].change(metric, group[base]))
    value, low, high = ranking.changes[base]
    turned = (1 / value, 1 / high, 1 / low) if METRIC[metric].is_latency else (-value, -high, -low)
    return show.compared(metric, Interval(*turned))


def matrix(groups: Groups, metric: str) -> str:
    """Policies by the groups of the overview, the lowest P95 TTFT first; bold: best, or tied with the best."""
    shown = groups.shown
    ranking = {key: rank(group, metric) for key, group in shown.items()}

    def cell(key: Key, policy: str) -> str:
        mark = "**" if policy in (ranking[key].best, *ranking[key].tied) else ""
        return f"{mark}{show.estimate(metric, shown[key][policy].interval(metric))}{mark}"

    one = len(groups.workloads) == 1
    cells = {f"load {key[1]:g}" if one else _cell(key): key for key in shown}
    return table([_policies(groups), *each(cells, cell)], groups.ranked)


def best(groups: Groups) -> str:
    """The best by workload and load; "" if the overview shows all groups."""
    if len(groups.shown) == len(groups) or len(groups.policies) < 2:
        return ""
    columns: list[Column[Key]] = [
        Column("workload", lambda key: plain(key[0]), left=True),
        Column("load", lambda key: f"{key[1]:g}"),
    ]
    return table([*columns, *(column for metric in CRITERIA for column in _best_columns(groups, metric))], groups)


def _best_columns(groups: Groups, metric: str) -> list[Column[Key]]:
    base, found = groups.base, {key: rank(group, metric) for key, group in groups.items()}
    best = {key: groups[key][ranking.best] for key, ranking in found.items()}
    return [
        Column(_superlative(metric), lambda key: show.name(best[key].policy)),
        Column(show.heading(METRIC[metric]), lambda key: show.estimate(metric, best[key].interval(metric))),
        Column(f"against {code(base)}", lambda key: _against_base(found[key], groups[key], base, metric)),
        Column("tied with it", lambda key: _ties(found[key], groups[key])),
    ]


def over_all(groups: Groups) -> str:
    """Every policy against the base over all cells; "" unless there are several cells with several seeds."""
    base = groups.base
    if len(groups) < 2 or min(len(runs.outcomes) for group in groups.values() for runs in group.values()) < 2:
        return ""
    p95_s, met = (
        {
            policy: np.stack([group[policy].column(metric) for group in groups.values()], axis=1)
            for policy in groups.ranked
        }
        for metric in CRITERIA
    )
    ratio = {policy: values / p95_s[base] for policy, values in p95_s.items()}
    points = {policy: values - met[base] for policy, values in met.items()}

    def middle(values: Floats, *, log: bool = False) -> Interval:
        return stratified(interquartile_mean, values).interval(log=log)

    def lower(policy: str) -> str:
        probability = stratified(probability_below, p95_s[policy], p95_s[base]).interval()
        return show.with_interval(probability, "{:.2f}".format, 0, 1)

    columns: list[Column[str]] = [
        _policies(groups),
        Column(
            f"TTFT P95 / that of {code(base)}, interquartile mean",
            lambda policy: _three(middle(ratio[policy], log=True)),
        ),
        Column("median cell", lambda policy: f"{np.median(ratio[policy].mean(axis=0)):.3f}"),
        Column("worst cell", lambda policy: f"{ratio[policy].mean(axis=0).max():.3f}"),
        Column("probability that it is lower", lower),
        Column("SLO attainment, interquartile mean (points)", lambda policy: show.points(middle(points[policy]))),
        Column("worst cell (points)", lambda policy: show.signed(show.percent)(points[policy].mean(axis=0).min())),
    ]
    return table(columns, [policy for policy in groups.ranked if policy != base])


def over_virtual_best(groups: Groups) -> str:
    """Every policy against the virtual best of each cell; "" if there is one cell, or no rule."""
    if len(groups) < 2 or virtual_best(next(iter(groups.values()))) is None:
        return ""
    against = {policy: against_virtual_best(groups, policy) for policy in groups.ranked}
    found = {policy: one for policy, one in against.items() if one is not None}
    columns: list[Column[str]] = [
        _policies(groups),
        Column("TTFT P95 / virtual best, geometric mean", lambda policy: _three(found[policy].ratio)),
        Column("cells at or below it", lambda policy: f"{found[policy].at_or_below} of {len(groups)}"),
        Column("cells non-inferior", lambda policy: f"{found[policy].non_inferior} of {len(groups)}"),
        Column("worst-cell regret (%)", lambda policy: f"{100 * found[policy].worst:+.1f}"),
        Column("in", lambda policy: _cell(found[policy].worst_cell)),
        Column("largest loss of attainment (points)", lambda policy: show.percent(found[policy].worst_points)),
    ]
    return table(columns, found)
