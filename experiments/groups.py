"""Results in groups: every policy's runs on one workload at one load, which are on the same requests."""

from collections.abc import Iterable

import numpy as np

import policies
from experiments.cells import Outcome
from experiments.estimates import Runs

BASE = "static"
Group = dict[str, Runs]
"""The runs of every policy on one workload at one load."""
Groups = dict[tuple[str, float], Group]
"""Groups by (workload, load); every group has the same policies."""


def grouped(outcomes: Iterable[Outcome]) -> Groups:
    """Outcomes by (workload, load), loads ascending, then by policy, in the order given; seeds ascend."""
    groups: dict[tuple[str, float], dict[str, list[Outcome]]] = {}
    for out in outcomes:
        cell = out.cell
        groups.setdefault((cell.workload, cell.load), {}).setdefault(cell.policy, []).append(out)
    order = {workload: rank for rank, workload in enumerate(dict.fromkeys(workload for workload, _ in groups))}
    return {
        key: {policy: Runs(sorted(runs, key=lambda out: out.cell.seed)) for policy, runs in groups[key].items()}
        for key in sorted(groups, key=lambda key: (order[key[0]], key[1]))
    }


def workloads(groups: Groups) -> list[str]:
    """Names of the workloads, in order."""
    return list(dict.fromkeys(workload for workload, _ in groups))


def of_workload(groups: Groups, workload: str) -> Groups:
    """The groups of one workload."""
    return {key: group for key, group in groups.items() if key[0] == workload}


def named(groups: Groups) -> list[str]:
    """The policies, in the order given."""
    return list(next(iter(groups.values())))


def base_of(groups: Groups) -> str:
    """The policy that the others are compared with: BASE, or the first where it was not run."""
    policies_named = named(groups)
    return BASE if BASE in policies_named else policies_named[0]


def shown_load(groups: Groups, workload: str) -> float:
    """The load that stands for a workload: the highest not above 1 (the knee, or the trace as it is) or the lowest."""
    loads = [load for name, load in groups if name == workload]
    return max((load for load in loads if load <= 1), default=min(loads))


def shown(groups: Groups) -> Groups:
    """What an overview shows: each workload at the load that stands for it, or one workload at all its loads."""
    names = workloads(groups)
    if len(names) == 1:
        return groups
    return {(name, load): groups[name, load] for name in names for load in [shown_load(groups, name)]}


def ranked(groups: Groups) -> list[str]:
    """The policies by P95 TTFT, lowest first: by its mean logarithm over the groups of an overview."""
    means = {
        policy: float(np.mean([np.log(group[policy].mean("ttft_p95_s")) for group in shown(groups).values()]))
        for policy in named(groups)
    }
    return sorted(means, key=means.__getitem__)


def highlighted(groups: Groups, most: int = 7) -> list[str]:
    """The policies that a crowded figure shows in colour, in the order given.

    The base, those that are learned or clairvoyant, and the best of the others by P95 TTFT.
    """
    marked = [name for name in named(groups) if policies.clairvoyant(name) or policies.trained_path(name)]
    chosen = list(dict.fromkeys([base_of(groups), *marked, *ranked(groups)]))[:most]
    return [name for name in named(groups) if name in chosen]
