"""Runs that are watched, and the alarms on them."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

import policies
from envs.cluster import ClusterConfig, Samples, Topology, Watch, simulate
from envs.workload import Workload
from experiments.cells import DRAIN_S, Cell
from experiments.metrics import as_array
from experiments.watch.alarms import ALARMS, END_TO_END, Signals, signals
from experiments.watch.early_warning import Break, Verdict, Watched, Worth, breaks, calibrate, judge, worth


class Task(NamedTuple):
    """A run to watch; its samples are wanted whole where `whole`."""

    cell: Cell
    workload: Workload
    config: ClusterConfig
    interval_s: float
    whole: bool


class Seen(NamedTuple):
    """A watched run.

    Attributes:
        signals: of the alarms.
        breaks: of TTFT.
        samples: all of them; None where they were not wanted.
    """

    signals: Signals
    breaks: list[Break]
    samples: Samples | None

    def by(self, alarm: str) -> Watched:
        """The run as one alarm sees it."""
        return Watched(self.signals.time_s, self.signals.by_alarm[alarm], self.breaks)


def see(task: Task) -> Seen:
    """Run a task."""
    watch = Watch(task.interval_s)
    policy = policies.make(task.cell.policy, seed=task.cell.seed)
    result = simulate(task.workload, policy, task.config, drain_s=DRAIN_S, watch=watch)
    samples = watch.samples
    records = as_array(result.records)
    ttft_slo_s = task.workload.ttft_slo_s[records["request"]]
    found = signals(samples, task.interval_s, records, ttft_slo_s, Topology(task.config))
    return Seen(found, breaks(found.time_s, found.ttft_p95), samples if task.whole else None)


class Setting(NamedTuple):
    """What alarms are calibrated for."""

    workload: str
    load: float
    policy: str


class Judged(NamedTuple):
    """One alarm in one setting.

    Attributes:
        threshold: calibrated; nan where it could not be.
        verdicts: on the runs that it is judged on.
        worth: what they come to.
    """

    threshold: float
    verdicts: list[Verdict]
    worth: Worth

    @property
    def leads_s(self) -> list[float]:
        """On every break of every run."""
        return [lead_s for verdict in self.verdicts for lead_s in verdict.leads_s]


def judge_alarms(
    seen: Mapping[Cell, Seen], validation: Sequence[int], evaluation: Sequence[int], false_per_h: float
) -> dict[Setting, dict[str, Judged]]:
    """Calibrate every alarm on some seeds of each setting and judge it on others; by setting and alarm."""
    found = {}
    for setting in dict.fromkeys(Setting(cell.workload, cell.load, cell.policy) for cell in seen):
        workload, load, policy = setting
        before, after = (
            [seen[Cell(policy, workload, load, seed)] for seed in seeds] for seeds in (validation, evaluation)
        )
        thresholds = {alarm: calibrate([run.by(alarm) for run in before], false_per_h) for alarm in ALARMS}
        verdicts = {alarm: [judge(run.by(alarm), thresholds[alarm]) for run in after] for alarm in ALARMS}
        found[setting] = {
            alarm: Judged(thresholds[alarm], verdicts[alarm], worth(verdicts[alarm], verdicts[END_TO_END]))
            for alarm in ALARMS
        }
    return found


def fired_s(run: Watched, threshold: float) -> list[float]:
    """When an alarm fired in one run: falsely, before a break, and late in one."""
    verdict = judge(run, threshold)
    true_s = [one.start_s - lead_s for one, lead_s in zip(run.breaks, verdict.leads_s, strict=True)]
    return sorted([*verdict.false_s, *[at_s for at_s in true_s if at_s < inf]])
