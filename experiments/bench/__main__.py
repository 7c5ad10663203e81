"""How fast it is, as ratios to bare SimPy measured in the same run.

    python -m experiments.bench [--json] [--profile P] [--trace FILE] [--seconds S] [--step-budget slo|fixed]
        [--no-plain] [--baseline FILE [--update]]

Absolute rates drift with the machine; quote a rate over `simpy_events_per_s` of the same run. Each figure is the best
of its repetitions, taken in turn, because the disturbance of a shared machine only ever slows a run down. Where modules
are compiled, a second process measures the same in plain Python.

compiled: whether this process runs compiled modules (`make venv`).
simpy_events_per_s: bare callbacks, timeouts whose callback sets the next one, 8 chains.
simulated_requests_per_s: `static` on requests like Azure conversation x3 (16.6 req/s, prompts about 1000 tokens,
    outputs about 130), or on the trace itself with --trace.
simulated_requests_per_s_kairos: the same under `kairos`, reports 0 s old, and the step budget given by --step-budget.
env_steps_per_s: the environment under its default arguments, actions drawn from the mask.
env_steps_per_s_8p8d: the same on 8P8D.
vector_env_steps_per_s: 32 such environments in one process, steps of all of them.
ppo_steps_per_s, ppo_ceiling_steps_per_s: PPO's default arguments on the environment, and on one whose steps are free.
copy_s: a copy of a cluster with 200 requests in flight.
decision_us: p50 and p99 of a decision of each policy on the same requests.
ratios: all of these but the last over simpy_events_per_s, the time of a copy in such events.
plain: the same object of the plain process.

With --baseline the ratios are compared with the table in a file; the exit code is 1 if one is worse by more than 20 %.
"""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from envs.cluster import ClusterConfig
from envs.traces import read_trace
from experiments.arguments import add_step_budget, option
from experiments.bench import baseline, measures
from hardware_profiles import InputError, load_profile
from hardware_profiles.cli import Parser, run_main
from hardware_profiles.compiled import is_compiled


def bench(arguments: Namespace) -> dict[str, Any]:
    """All figures of this process; see the module's text."""
    profile = arguments.profile
    loaded = load_profile(profile)
    config = ClusterConfig(loaded, step_budget=arguments.step_budget)
    fresh = ClusterConfig(loaded, step_budget=arguments.step_budget, report_age_s=0.0)
    trace = arguments.trace
    workload = read_trace(trace, "azure", rate_scale=3.0) if trace else measures.conversation()
    taken_in_turn: dict[str, Callable[[], float]] = {
        "simpy_events_per_s": measures.simpy_events_per_s,
        "simulated_requests_per_s": lambda: measures.requests_per_s(workload, "static", config),
        "simulated_requests_per_s_kairos": lambda: measures.requests_per_s(workload, "kairos", fresh),
        "env_steps_per_s": lambda: measures.env_steps_per_s(profile=profile),
        "env_steps_per_s_8p8d": lambda: measures.env_steps_per_s(profile=profile, cluster="8P8D"),
        "vector_env_steps_per_s": lambda: measures.vector_env_steps_per_s(profile=profile),
        "ppo_steps_per_s": lambda: measures.ppo_steps_per_s(profile=profile),
        "ppo_ceiling_steps_per_s": lambda: measures.ppo_ceiling_steps_per_s(profile=profile),
        "copy_s": lambda: measures.copy_s(config),
    }
    for of_run in (config, fresh):  # what is made once and kept is no part of a figure
        measures.requests_per_s(workload.head(100), "kairos", of_run)
    found: dict[str, Any] = {}
    began = perf_counter()
    while not found or perf_counter() - began < arguments.seconds:
        for name, measure in taken_in_turn.items():
            value = measure()
            better = min if name == "copy_s" else max
            found[name] = better(value, found.get(name, value))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found["decision_us"] = measures.decision_us(workload.head(3_000), config)
    found["ratios"] = baseline.ratios(found)
    return {"compiled": is_compiled(), "step_budget": arguments.step_budget, **found}


def _plain(arguments: Namespace) -> dict[str, Any]:
    """The figures of a process in plain Python."""
    same = {name: getattr(arguments, name) for name in ("profile", "trace", "seconds", "step_budget")}
    options = [f"{option(name)}={value}" for name, value in same.items() if value is not None]
    command = [sys.executable, "-m", "experiments.bench", "--json", *options]
    environment = {**os.environ, "PREFILL_PLACEMENT_PLAIN": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def parse(argv: Sequence[str]) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or an option that has no meaning with the others.
    """
    parser = Parser(prog="python -m experiments.bench", description="Speed, as ratios to bare SimPy in the same run.")
    add = parser.add_argument
    add("--profile", default="a100-qwen3-8b", help="hardware profile (default %(default)s)")
    add("--trace", type=Path, metavar="FILE", help="Azure CSV to simulate, at rate scale 3")
    add("--seconds", type=float, default=60.0, help="time for the repetitions (default %(default)g)")
    add_step_budget(parser)
    add("--no-plain", action="store_true", help="leave out the process in plain Python")
    add("--json", action="store_true", help="print one JSON object")
    add("--baseline", type=Path, metavar="FILE", help="compare with the table in FILE (docs/bench.md)")
    add("--update", action="store_true", help="write this run into that table instead")
    arguments = parser.parse_args(argv)
    if not 0.0 <= arguments.seconds <= 3600.0:
        raise InputError(f"--seconds must be from 0 to 3600, not {arguments.seconds}")
    if arguments.update and arguments.baseline is None:
        raise InputError("--update goes with --baseline only")
    if arguments.baseline is not None and not arguments.update:
        baseline.read(arguments.baseline)  # a faulty file is reported at once
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(given)
    found = bench(arguments)
    modes = {"compiled" if found["compiled"] else "plain": found["ratios"]}
    if found["compiled"] and not arguments.no_plain:
        found["plain"] = _plain(arguments)
        modes["plain"] = found["plain"]["ratios"]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(_text(found, modes))
    if arguments.update:
        baseline.write(arguments.baseline, modes)
    elif arguments.baseline is not None:
        text, fallen = baseline.compare(modes, baseline.read(arguments.baseline))
        print(text, file=sys.stderr if arguments.json else sys.stdout)
        if fallen:
            print(f"worse than {arguments.baseline} by more than {baseline.TOLERANCE:.0%}: {'; '.join(fallen)}")
            sys.exit(1)


def _text(found: dict[str, Any], modes: dict[str, baseline.Ratios]) -> str:
    lines = [
        f"bare SimPy: {found['simpy_events_per_s']:,.0f} events/s; step budget {found['step_budget']}; shares of it:",
        "",
        baseline.table(modes),
        f"\n{'decision':34} {'p50 us':>10} {'p99 us':>10}",
    ]
    lines += [f"{name:34} {times['p50']:10.1f} {times['p99']:10.1f}" for name, times in found["decision_us"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
