"""The overview of a comparison: policy by workload, the best by workload and load, and everything in one number."""

import numpy as np

from experiments import statistics
from experiments.groups import Groups, base_of, named, ranked, shown, workloads
from experiments.leaders import ATTAINMENT, P95, Measure, leaders
from experiments.markdown import plain, table
from experiments.printed import listing, name, with_interval


def matrix(groups: Groups, measure: Measure) -> str:
    """Policies by what `shown` shows, the best by P95 TTFT first; bold where best or not told apart from the best."""
    columns = shown(groups)
    leading = {key: {*(found := leaders(group, measure)).tied, found.best} for key, group in columns.items()}
    one = len(workloads(groups)) == 1
    header = ["policy", *(f"load {load:g}" if one else f"{plain(work)}, load {load:g}" for work, load in columns)]
    rows = []
    for policy in ranked(groups):
        cells = [
            (measure.show(group[policy].estimate(measure.column)), policy in leading[key])
            for key, group in columns.items()
        ]
        rows.append([name(policy), *(f"**{text}**" if leads else text for text, leads in cells)])
    return table(header, rows)


def best(groups: Groups) -> str:
    """The best by workload and load; "" where the overview's columns are all the groups there are."""
    if len(shown(groups)) == len(groups) or len(named(groups)) < 2:
        return ""
    base = base_of(groups)
    rows = []
    for (workload, load), group in groups.items():
        row = [plain(workload), f"{load:g}"]
        for measure in (P95, ATTAINMENT):
            found, tied = leaders(group, measure)
            runs = group[found]
            row += [
                name(found),
                measure.show(runs.estimate(measure.column)),
                "itself" if found == base else measure.against(runs, group[base]),
                listing([name(policy) for policy in tied]) or "none",
            ]
        rows.append(row)
    header = ["workload", "load"]
    for measure in (P95, ATTAINMENT):
        header += [measure.best_is, measure.title, f"against {name(base)}", "not told apart"]
    return table(header, rows)


def over_all(groups: Groups) -> str:
    """The table over all workloads and loads; "" where there are not several of them with several seeds."""
    base = base_of(groups)
    seeds = min(len(runs.outcomes) for group in groups.values() for runs in group.values())
    if len(groups) < 2 or seeds < 2:
        return ""

    def scores(policy: str, column: str) -> statistics.Floats:
        return np.stack([group[policy].column(column) for group in groups.values()], axis=1)

    rows = []
    for policy in ranked(groups):
        if policy == base:
            continue
        tail, base_tail = scores(policy, "ttft_p95_s"), scores(base, "ttft_p95_s")
        points = 100 * (scores(policy, "slo_attainment") - scores(base, "slo_attainment"))
        by_cell = (tail / base_tail).mean(axis=0)
        rows.append(
            [
                name(policy),
                with_interval(statistics.interquartile_mean(tail / base_tail), "{:.3f}".format, least=0),
                f"{np.median(by_cell):.3f}",
                f"{by_cell.max():.3f}",
                with_interval(statistics.probability_below(tail, base_tail), "{:.2f}".format, 0, 1),
                with_interval(statistics.interquartile_mean(points), "{:+.2f}".format, -100, 100),
                f"{points.mean(axis=0).min():+.2f}",
            ]
        )
    header = [
        "policy",
        f"TTFT P95 / {name(base)}'s, interquartile mean",
        "median pair",
        "worst pair",
        "probability that it is lower",
        "SLO attainment, points, interquartile mean",
        "worst pair (points)",
    ]
    return table(header, rows) if rows else ""
