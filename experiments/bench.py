"""Measure speed, as ratios to bare SimPy measured in the same run.

Absolute rates drift with the machine; quote a rate over `simpy_events_per_s` of the same run. Each figure is the best
of its repetitions, taken in turn, because the disturbance of a shared machine only ever slows a run down. If modules
are compiled, a second process measures the same in plain Python.

The JSON object of --json:

| key | meaning |
|---|---|
| compiled | whether this process runs compiled modules (`make venv`) |
| simpy_events_per_s | bare callbacks: timeouts whose callback sets the next one, 8 chains |
| simulated_requests_per_s | `static` on requests like Azure conversation x3, or on the trace of --trace |
| simulated_requests_per_s_kairos | the same under `kairos`, reports 0 s old, and the step budget of --step-budget |
| env_steps_per_s | the environment under its default arguments, actions drawn from the mask |
| env_steps_per_s_8p8d | the same on 8P8D |
| vector_env_steps_per_s | 32 such environments in one process, steps of all of them |
| ppo_steps_per_s, ppo_ceiling_steps_per_s | PPO's default arguments on the environment, and on one with free steps |
| copy_s | a copy of a cluster with 200 requests in flight |
| decision_us | p50 and p99 of a decision of each policy on the same requests |
| ratios | all of these but the last over simpy_events_per_s; the time of a copy in such events |
| plain | the same object of the plain process |

With --baseline the ratios are compared with the table in a file; the exit code is 1 if one is worse by more than 20 %.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from envs.cluster import ClusterConfig
from envs.cluster.config import StepBudget
from envs.traces import read_trace
from experiments.options.parser import CommandOptions, command, flag, option
from experiments.speed import baseline, measurements
from hardware_profiles import InputError, load_profile
from hardware_profiles.compiled import is_compiled


@dataclass(frozen=True, kw_only=True)
class BenchOptions(CommandOptions):
    """Options of `experiments.bench`."""

    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile")
    trace: Path | None = option(None, metavar="FILE", help="Azure CSV to simulate, at rate scale 3")
    seconds: float = option(60.0, metavar="S", help="time for the repetitions")
    quick: bool = option(False, help="do a small part of the work: rough figures in seconds")
    step_budget: StepBudget = option(ClusterConfig.step_budget, help="as in experiments.compare")
    no_plain: bool = option(False, help="leave out the process in plain Python")
    json: bool = option(False, help="print one JSON object")
    baseline: Path | None = option(None, metavar="FILE", help="compare with the table in FILE (docs/bench.md)")
    update: bool = option(False, help="write this run into that table instead")

    def __post_init__(self) -> None:
        if not 0.0 <= self.seconds <= 3600.0:
            raise InputError(f"--seconds must be from 0 to 3600, not {self.seconds}")
        if self.update and self.baseline is None:
            raise InputError("--update goes with --baseline only")
        if self.baseline is not None and not self.update:
            baseline.read(self.baseline)  # a faulty file is reported at once


def measure(options: BenchOptions) -> dict[str, Any]:
    """All figures of this process; see the module's text."""
    profile = options.profile
    config = ClusterConfig(load_profile(profile), step_budget=options.step_budget)
    fresh = replace(config, report_age_s=0.0)
    work = measurements.QUICK if options.quick else measurements.Work()
    if options.trace:
        workload = read_trace(options.trace, "azure", rate_scale=3.0)
    else:
        workload = measurements.conversation(work.requests)
    steps, rollouts = work.steps, work.rollouts
    taken_in_turn: dict[str, Callable[[], float]] = {
        "simpy_events_per_s": lambda: measurements.simpy_events_per_s(work.events),
        "simulated_requests_per_s": lambda: measurements.requests_per_s(workload, "static", config),
        "simulated_requests_per_s_kairos": lambda: measurements.requests_per_s(workload, "kairos", fresh),
        "env_steps_per_s": lambda: measurements.env_steps_per_s(steps, profile=profile),
        "env_steps_per_s_8p8d": lambda: measurements.env_steps_per_s(steps, profile=profile, cluster="8P8D"),
        "vector_env_steps_per_s": lambda: measurements.vector_env_steps_per_s(work.vector_steps, profile=profile),
        "ppo_steps_per_s": lambda: measurements.ppo_steps_per_s(rollouts, profile=profile),
        "ppo_ceiling_steps_per_s": lambda: measurements.ppo_ceiling_steps_per_s(rollouts, profile=profile),
        "copy_s": lambda: measurements.copy_s(config),
    }
    for one in (config, fresh):  # so that no figure includes work that is done once and kept
        measurements.requests_per_s(workload.head(100), "kairos", one)
    found: dict[str, Any] = {}
    began = perf_counter()
    while not found or perf_counter() - began < options.seconds:
        for name, figure in taken_in_turn.items():
            value = figure()
            better = min if name == "copy_s" else max
            found[name] = better(value, found.get(name, value))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found["decision_us"] = measurements.decision_us(workload.head(work.decided), config)
    found["ratios"] = {figure.name: figure.ratio(found) for figure in baseline.FIGURES}
    return {"compiled": is_compiled(), "step_budget": options.step_budget, **found}


def run(options: BenchOptions) -> None:
    """Measure, print the figures, and compare or write the baseline; exit code 1 if a figure has fallen."""
    found = measure(options)
    modes = {"compiled" if found["compiled"] else "plain": found["ratios"]}
    if found["compiled"] and not options.no_plain:
        same = {name: getattr(options, name) for name in ("profile", "trace", "seconds", "step_budget")}
        given = [f"{flag(name)}={value}" for name, value in same.items() if value is not None]
        quick = [flag("quick")] if options.quick else []
        process = [sys.executable, "-m", "experiments.bench", "--json", *quick, *given]
        environment = {**os.environ, "PREFILL_PLACEMENT_PLAIN": "1"}
        done = subprocess.run(process, env=environment, stdout=subprocess.PIPE, check=True)
        found["plain"] = json.loads(done.stdout)
        modes["plain"] = found["plain"]["ratios"]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        bare = f"bare SimPy: {found['simpy_events_per_s']:,.0f} events/s"
        print(f"{bare}; step budget {found['step_budget']}; shares of it:")
        print(f"\n{baseline.ratio_table(modes)}\n\n{'decision':34} {'p50 us':>10} {'p99 us':>10}")
        for name, times in found["decision_us"].items():
            print(f"{name:34} {times['p50']:10.1f} {times['p99']:10.1f}")
    if options.baseline is None:
        return
    if options.update:
        baseline.write(options.baseline, modes)
        return
    text, fallen = baseline.compare(modes, baseline.read(options.baseline))
    to = sys.stderr if options.json else sys.stdout
    print(text, file=to)
    if fallen:
        print(f"worse than {options.baseline} by more than {baseline.TOLERANCE:.0%}: {'; '.join(fallen)}", file=to)
        sys.exit(1)


if __name__ == "__main__":
    command(BenchOptions, run, "bench", "Measure speed, as ratios to bare SimPy in the same run.")
