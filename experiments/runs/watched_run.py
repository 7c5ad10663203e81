"""Watched runs: a trial whose queues, nodes and links are sampled, and the signals of alarms on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from envs.cluster import Policy, Samples, Topology, Watch, simulate
from envs.workload import Workload
from experiments.analysis.alarms import ALARMS, Signals, judge_alarms, signals
from experiments.analysis.bootstrap import Floats
from experiments.analysis.early_warning import JudgedAlarm
from experiments.analysis.request_table import DRAIN_S, as_array
from experiments.runs.cache import Cache, Entry, Result, Task, packed
from experiments.runs.trial import Trial

_SIGNALS, _SAMPLES = ".signals.npz", ".samples.npz"


@dataclass(frozen=True)
class WatchedRun(Task):
    """A trial to watch; most runs need their samples for the signals only."""

    trial: Trial
    interval_s: float
    keep_samples: bool

    def __str__(self) -> str:
        return str(self.trial)

    def inputs(self) -> tuple[Workload, Policy | None]:
        """Those of the trial."""
        return self.trial.inputs()

    def run(self, inputs: tuple[Workload, Policy | None]) -> Result:
        """Simulate and watch; the result is in its files."""
        workload, learned = inputs
        trial, sampler = self.trial, Watch(self.interval_s)
        policy = learned or trial.policy.make(trial.seed)
        result = simulate(workload, policy, trial.config, drain_s=DRAIN_S, watch=sampler)
        records, samples = as_array(result.records), sampler.samples
        ttft_slo_s = workload.ttft_slo_s[records["request"]]
        found = signals(samples, self.interval_s, records, ttft_slo_s, Topology(trial.config))
        by_alarm = np.stack([found.by_alarm[alarm] for alarm in ALARMS])
        files = {_SIGNALS: packed(time_s=found.time_s, ttft_p95=found.ttft_p95, by_alarm=by_alarm)}
        return Result(None, files | ({_SAMPLES: packed(**asdict(samples))} if self.keep_samples else {}))


class WatchedSetting(NamedTuple):
    """One policy on one workload at one load: the first run, which figures show, and the alarms on all runs."""

    trial: Trial
    samples: Samples
    signals: Mapping[int, Signals]  # of each run that alarms are judged on, by seed
    alarms: Mapping[str, JudgedAlarm]  # empty if there were no runs to calibrate them on


def run_watched(
    trials: Sequence[Trial], interval_s: float, judged: Sequence[int], false_per_h: float, cache: Cache
) -> list[WatchedSetting]:
    """Watch the trials that are not finished yet, and judge the alarms of each setting on the seeds `judged`.

    Alarms are calibrated on the other seeds, to at most `false_per_h` false ones per hour.
    """
    runs = [WatchedRun(trial, interval_s, trial.seed == judged[0]) for trial in trials]
    groups: dict[object, list[tuple[Trial, Entry]]] = {}
    for trial, entry in zip(trials, cache.run(runs), strict=True):
        groups.setdefault((trial.workload, trial.load, trial.policy), []).append((trial, entry))
    settings = []
    for found in groups.values():
        by_seed = {trial.seed: _signals(**entry.arrays(_SIGNALS)) for trial, entry in found}
        after = {seed: by_seed.pop(seed) for seed in judged}
        alarms = judge_alarms(list(by_seed.values()), list(after.values()), false_per_h) if by_seed else {}
        first, entry = found[0]
        samples = entry.arrays(_SAMPLES)
        samples["prefill_nodes"] = int(samples["prefill_nodes"])
        settings.append(WatchedSetting(first, Samples(**samples), after, alarms))
    return settings


def _signals(time_s: Floats, ttft_p95: Floats, by_alarm: Floats) -> Signals:
    return Signals(time_s, ttft_p95, dict(zip(ALARMS, by_alarm, strict=True)))
