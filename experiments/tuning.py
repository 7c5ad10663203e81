"""Tuning a rule: runs of several settings of its knobs on the same requests, and the setting that is best."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.cluster import ClusterConfig
from envs.objective import Objective
from envs.workload import Workload
from experiments.cells import Cell
from experiments.cost import Tried, best, measure
from experiments.executors import finished
from experiments.knobs import settings

SETTINGS = 18


@dataclass(frozen=True)
class Trial:
    """A run of one setting.

    Attributes:
        cell: identifies the run; its policy is the setting.
        workload: the requests.
        config: the cluster.
        objective: the cost.
    """

    cell: Cell
    workload: Workload
    config: ClusterConfig
    objective: Objective


def run_trial(trial: Trial) -> Tried:
    """Run a setting and return its cost and attainment."""
    return measure(trial.cell.policy, trial.workload, trial.config, trial.objective, trial.cell.seed)


def tuned(
    rule: str,
    runs: Sequence[tuple[Workload, ClusterConfig]],
    *,
    objective: Objective,
    count: int = SETTINGS,
    jobs: int | None = 1,
) -> tuple[str, dict[str, Tried]]:
    """The best knobs of a rule on the mean over runs; see `cost.best` for what is best.

    Args:
        rule: its registered name.
        runs: the requests of each and the cluster that they meet.
        objective: the cost.
        count: settings tried, at most.
        jobs: processes.

    Returns:
        The rule's name with its knobs, and the mean result of every setting that was tried, by name.
    """
    names = settings(rule, count)
    trials = [
        Trial(Cell(name, "", 0.0, i), workload, config, objective)
        for name in names
        for i, (workload, config) in enumerate(runs)
    ]
    found = {}
    for trial, tried in finished(run_trial, trials, jobs):
        found[trial.cell] = tried
        show_progress(rule, len(found), len(trials))
    means = {name: mean([found[Cell(name, "", 0.0, i)] for i in range(len(runs))]) for name in names}
    return best(means), means


def mean(several: Sequence[Tried]) -> Tried:
    """The mean cost and the mean attainment of several runs."""
    return Tried(*np.mean(several, axis=0).tolist())


def show_progress(what: str, done: int, of: int) -> None:
    """Say on stderr, on one line, how many runs are done."""
    print(f"\rtuning {what}: {done}/{of} runs", end="\n" if done == of else "", file=sys.stderr, flush=True)
