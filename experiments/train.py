"""`python -m experiments.train`: train a policy, and compare it with the rules on requests it never saw.

The run goes through stages; each stage's results stay in --out, so the same command resumes where it stopped.

1. The knee of `static` on each workload and cluster shape, the load that every other load is a multiple of.
2. The knobs of `kairos`, tuned on a separate set of requests.
3. With --warm-start lookahead, a start for PPO: placements played forward on copies of the cluster, their costs
   fitted by the network. It is evaluated too.
4. PPO, from scratch or from there, on a mixture: each group of environments plays one workload on one shape.
5. Evaluation on unseen seeds, or the unseen end of a trace: comparison.csv, requests.csv.gz, summary.md, figures/,
   report.html.
"""

import gc
import json
import os
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.lookahead import LookaheadArguments, collect
from agents.placement_policy import current_layout
from envs.choices import CHOICE_SETS, most_choices
from envs.cluster import ClusterConfig, parse_shape
from envs.generators import families, generate, slos_of_family
from envs.objective import TUNING_OBJECTIVE
from envs.traces import formats, read_trace, slos_of_format
from envs.workload import Workload
from experiments.arguments import add_slos, add_step_budget, check_counts, check_families, check_positive, option, slos
from experiments.cells import Cell, Outcome, run_cells
from experiments.digests import config_digest, digest, simulation_digest
from experiments.knee import TARGET, knees
from experiments.output import claim, commit, write_all
from experiments.printed import slos_line
from experiments.provenance import made_by
from experiments.sources import EVALUATION_SEED, TUNING_SEEDS, Arrivals, Episodes, Family, Source, Trace
from experiments.tuning import tuned
from hardware_profiles import InputError, load_profile
from hardware_profiles.cli import Parser, run_main
from hardware_profiles.files import replacing

if TYPE_CHECKING:  # torch is slow to import, and invalid input should be reported at once
    from agents.network import PlacementNetwork
    from agents.ppo import PPOArguments

LOADS = [0.7, 0.95, 1.05, 1.2]
TRAINING_LOADS = (0.5, 1.15)
RULES = ["static", "always-local", "colocated", "shortest-ttft", "shortest-ttft:choices=pairs", "kairos"]

_WARM_EPISODE_REQUESTS = 256
_TUNING_REQUESTS = 1000
_GROUPS = 8  # at least so many groups of environments; each plays the same arrivals
_START: dict[str, Any] = {
    "start": "running",
    "warm_up": ("static", "shortest-ttft", "random"),
    "warm_up_s": (0.0, 15.0),
}


@dataclass(frozen=True)
class Setting:
    """A workload on a cluster.

    Attributes:
        name: what tables call it.
        source: its requests.
        config: the cluster.
    """

    name: str
    source: Source
    config: ClusterConfig


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Read and check the command line.

    Raises:
        InputError: a value out of range, or an option that has no meaning with the others.
    """
    parser = Parser(prog="python -m experiments.train", description="Train a placement policy and evaluate it.")
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="default: runs/train-, and a digest of the command")
    add("--timesteps", type=int, default=300_000, metavar="N", help="PPO decisions (default %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of everything the training draws (default %(default)s)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--workload",
        nargs="+",
        default=["burst"],
        metavar="W",
        help=f"families to train and evaluate on: {', '.join(families())} (default burst)",
    )
    source.add_argument("--trace", type=Path, metavar="FILE", help="train on the first 60 %% of a recorded workload")
    add("--trace-format", choices=formats(), metavar="F", help=f"{', '.join(formats())}; needed with --trace")
    add("--rate-scale", type=float, metavar="X", help="compress the trace's time by X (default 1)")
    add("--profile", default="a100-qwen3-8b", metavar="P", help="hardware profile, name or path (default %(default)s)")
    add("--cluster", nargs="+", default=["2P2D"], metavar="NPMD", help="prefill and decode nodes (default 2P2D)")
    add("--choices", choices=CHOICE_SETS, default="pairs", help="what the policy chooses from (default %(default)s)")
    add_step_budget(parser)
    add_slos(parser)
    add(
        "--wandb",
        default="offline",
        choices=["offline", "online", "disabled"],
        metavar="MODE",
        help="(default offline)",
    )
    add(
        "--warm-start", default="none", choices=["lookahead", "none"], help="what PPO starts from (default %(default)s)"
    )
    add("--warm-episodes", type=int, default=80, metavar="N", help="of 256 requests each (default %(default)s)")
    add(
        "--loads",
        type=float,
        nargs="+",
        metavar="L",
        help="of the evaluation (default 0.7 0.95 1.05 1.2; 1 for a trace)",
    )
    add("--seeds", type=int, metavar="N", help="evaluation seeds, none trained or tuned on (default 10; 1 for a trace)")
    add("--requests", type=int, default=1500, metavar="N", help="of an evaluation run (default %(default)s)")
    add("--jobs", type=int, default=2, metavar="N", help="processes (default %(default)s)")
    args = parser.parse_args(argv)
    args.line = shlex.join(sys.argv[1:] if argv is None else argv)
    if args.trace:
        if args.trace_format is None:
            raise InputError(f"--trace needs --trace-format: {', '.join(formats())}")
        args.workload = None
        defaults: dict[str, Any] = {"rate_scale": 1.0, "seeds": 1, "loads": [1.0]}
    else:
        for name in ("trace_format", "rate_scale"):
            if getattr(args, name) is not None:
                raise InputError(f"{option(name)} goes with --trace only")
        check_families(args.workload)
        defaults = {"seeds": 10, "loads": LOADS}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ("workload", "cluster", "loads"):
        if getattr(args, name):
            setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    for shape in args.cluster:
        parse_shape(shape)
    if len(args.cluster) > 1 and args.warm_start != "none":
        raise InputError("--warm-start lookahead goes with one --cluster shape only")
    check_counts(args, "timesteps", "warm_episodes", "seeds", "requests", "jobs")
    check_positive(args, "loads")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must be 0 or more")
    slos(args)
    return args


def train(args: Namespace) -> None:
    """Do what `parse` read: train, evaluate, write the folder, print the tables."""
    began_s = time.monotonic()
    profile = load_profile(args.profile)
    configs = [ClusterConfig(profile, shape=shape, step_budget=args.step_budget) for shape in args.cluster]
    asked = slos(args)
    trace = read_trace(args.trace, args.trace_format, rate_scale=args.rate_scale, slos=asked) if args.trace else None

    command = {name: value for name, value in vars(args).items() if name not in ("out", "jobs", "line")}
    identity = json.dumps(command, default=str)
    folder = args.out or Path("runs") / f"train-{digest(identity)}"
    files = [args.trace] if args.trace else []
    fingerprint = digest(identity, *map(config_digest, configs), simulation_digest(), files=files)
    claim(folder, command)
    _write_json(
        folder / "config.json",
        {**command, "objective": asdict(TUNING_OBJECTIVE), "training_loads": TRAINING_LOADS},
    )
    with replacing(folder / "command.txt") as path:
        path.write_text(f"python -m experiments.train {args.line}\n")

    settings: list[Setting] = []
    if trace is not None:
        source = Trace(args.trace.name.partition(".")[0], trace)
        settings = [Setting(_name(args, source.name, config), source, config) for config in configs]
        load_is = f"load (multiple of rate scale {args.rate_scale:g})"
    else:
        at_rate = {name: partial(generate, name, requests=args.requests, slos=asked) for name in args.workload}
        for config in configs:
            found = knees(at_rate, config, folder / "cells", fingerprint=fingerprint, jobs=args.jobs)
            settings += [
                Setting(_name(args, name, config), Family(name, knee_rps, asked), config)
                for name, knee_rps in found.items()
            ]
        shown = ", ".join(f"{one.name} {one.source.knee_rps:.2f}" for one in settings if isinstance(one.source, Family))
        _say(f"knee of static, requests/s: {shown}")
        load_is = f"load (multiple of the rate at which static meets the SLOs of {TARGET:.0%}; requests/s: {shown})"

    seeds = TUNING_SEEDS[: 1 if trace is not None else -(-len(TUNING_SEEDS) // len(settings))]
    tuning = [
        (one.source.tuning(_TUNING_REQUESTS, load, seed), one.config)
        for one in settings
        for load in args.loads
        for seed in seeds
    ]
    kairos, tried = tuned("kairos", tuning, objective=TUNING_OBJECTIVE, jobs=args.jobs)
    _write_json(
        folder / "tuning.json", {"chosen": kairos, "tried": {name: found._asdict() for name, found in tried.items()}}
    )
    _say(f"tuned: {kairos}")

    learned = _learn(args, settings, folder)

    names = list(dict.fromkeys([*RULES, kairos, *learned]))
    first = 0 if trace else EVALUATION_SEED
    trained = digest(fingerprint, files=[Path(name.partition("=")[2]) for name in learned])
    outcomes = [
        outcome
        for setting in settings
        for outcome in _evaluate(args, setting, names, range(first, first + args.seeds), folder / "cells", trained)
    ]
    of_each = {
        one.name: slos_of_format(args.trace_format, asked) if trace else slos_of_family(one.source.name, asked)
        for one in settings
    }
    about = [
        f"cluster {' and '.join(args.cluster)} of {profile.name}; step budget {args.step_budget}",
        f"the policy chooses from {args.choices}",
        f"node reports {configs[0].report_age_s * 1e3:g} ms old",
        f"trained on loads from {TRAINING_LOADS[0]:g} to {TRAINING_LOADS[1]:g}; evaluated on "
        + (
            "the last 25 % of the trace's span, never trained or tuned on"
            if trace
            else f"seeds {EVALUATION_SEED} to {EVALUATION_SEED + args.seeds - 1}, on which nothing was trained or tuned"
        ),
        f"cost of a request, in training and tuning: TTFT / SLO + {TUNING_OBJECTIVE.tail_weight:g} (TTFT / SLO)^2 "
        "+ TBT excess",
        slos_line(of_each, native=args.trace_format == "native"),
        f"`{kairos}` is kairos tuned on a separate set of requests: least cost within a point of the best attainment, "
        f"of {len(tried)} settings (tuning.json); `shortest-ttft` is not from a paper",
        load_is,
    ]
    print(
        write_all(
            outcomes,
            "A trained policy and the rules",
            about,
            {name: flat_s for name, one in of_each.items() if (flat_s := one.flat_ttft_s) is not None},
            load_is,
            folder,
            cells_name="comparison.csv",
            bases=["static", kairos, "shortest-ttft", "shortest-ttft:choices=pairs"],
            made_by=made_by(
                f"python -m experiments.train {args.line}".rstrip(),
                profile,
                f"{args.seed} in training, {first} to {first + args.seeds - 1} in evaluation",
            ),
        )
    )
    _write_json(
        folder / "meta.json",
        {
            "commit": commit(),
            "profile": profile.name,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "wall_s": time.monotonic() - began_s,
        },
    )
    print(
        f"\nwritten to {folder}: policy.npz, model.zip, progress.csv, comparison.csv, report.html, summary.md, figures/"
    )


def _evaluate(
    args: Namespace, setting: Setting, names: Sequence[str], seeds: range, folder: Path, fingerprint: str
) -> list[Outcome]:
    """Run every policy on one setting."""

    def requests(_: str, load: float, seed: int) -> Workload:
        return setting.source.evaluation(args.requests, load, seed)

    cells = [Cell(name, setting.name, load, seed) for load, seed, name in product(args.loads, seeds, names)]
    return run_cells(cells, requests, setting.config, folder, fingerprint=fingerprint, jobs=args.jobs)


def _name(args: Namespace, workload: str, config: ClusterConfig) -> str:
    return workload if len(args.cluster) == 1 else f"{workload} {config.shape}"


def _learn(args: Namespace, settings: Sequence[Setting], folder: Path) -> list[str]:
    """Train; returns the names of the policies to evaluate, warm start first if there is one."""
    import torch

    from agents.episodes import TrainingSeeds
    from agents.export import save_policy
    from agents.network import PlacementNetwork
    from agents.ppo import PPOArguments
    from agents.progress import ProgressLine
    from agents.training import train as train_ppo
    from agents.vec_env import PlacementVecEnv
    from envs.placement_env import PrefillPlacementEnv

    gc.freeze()  # torch is no garbage, and need not be looked at each time
    policy_path, warm_path = folder / "policy.npz", folder / "warm-start.npz"
    arguments = PPOArguments(timesteps=args.timesteps, seed=args.seed).for_groups(
        len(settings) * -(-_GROUPS // len(settings))
    )
    names = [f"ppo={policy_path}"] if args.warm_start == "none" else [f"warm-start={warm_path}", f"ppo={policy_path}"]
    if policy_path.exists():
        _say(f"{policy_path} is there already")
        return names
    torch.set_num_threads(1)
    described = {
        **asdict(arguments),
        "settings": [one.name for one in settings],
        "clusters": args.cluster,
        "profile": settings[0].config.profile.name,
        "step_budget": args.step_budget,
    }
    layout = current_layout(args.choices)

    weights = None
    if args.warm_start != "none":
        network = _warm_start(args, settings, folder, arguments)
        save_policy(warm_path, network, layout, {**described, "warm_start_only": True})
        weights = network.state_dict()

    rows = max(most_choices(args.choices, *parse_shape(shape)) for shape in args.cluster)

    seeds = TrainingSeeds(arguments.seed, arguments.rollouts_per_arrivals)

    def make_env(setting: Setting) -> PrefillPlacementEnv:
        return PrefillPlacementEnv(
            setting.config.profile,
            setting.config.shape,
            args.choices,
            step_budget=args.step_budget,
            rows=rows,
            **asdict(TUNING_OBJECTIVE),
            **setting.source.environment(*TRAINING_LOADS),
            **_START,
        )

    def make_vec_env(first_episodes: Sequence[int]) -> PlacementVecEnv:
        played = [settings[seeds.stream(index) % len(settings)] for index in range(len(first_episodes))]
        return PlacementVecEnv(
            [make_env(setting) for setting in played],
            seeds,
            first_episodes,
            [setting.source.reward_scale for setting in played],
            processes=min(args.jobs, os.cpu_count() or 1),
        )

    model = train_ppo(
        make_vec_env,
        arguments,
        folder,
        initial_weights=weights,
        on_progress=ProgressLine(args.timesteps),
        wandb_mode=args.wandb,
        resume=(folder / "checkpoint.pt").exists(),
    )
    network_trained: PlacementNetwork = model.policy.network
    save_policy(policy_path, network_trained, layout, described)
    return names


def _warm_start(
    args: Namespace, settings: Sequence[Setting], folder: Path, arguments: "PPOArguments"
) -> "PlacementNetwork":
    """A network fitted to the costs of placements played forward; the settings take turns, all on one cluster."""
    import torch

    from agents.network import PlacementNetwork
    from agents.pretrain import FitArguments, regress_costs

    lookahead = LookaheadArguments(
        episodes=args.warm_episodes, objective=TUNING_OBJECTIVE, choices=args.choices, seed=args.seed
    )
    began_s = time.monotonic()

    def show(done: int) -> None:
        if done % 10 == 0 or done == args.warm_episodes:
            _say(f"look-ahead episodes: {done}/{args.warm_episodes}, {time.monotonic() - began_s:.0f} s")

    arrivals = tuple([Arrivals(one.source, *TRAINING_LOADS) for one in settings])
    workloads = Episodes(arrivals, _WARM_EPISODE_REQUESTS, args.seed)
    examples = dict(collect(workloads, settings[0].config, lookahead, folder / "lookahead", args.jobs, show))
    costs = examples.pop("costs")
    torch.manual_seed(args.seed)
    network = PlacementNetwork(current_layout(args.choices).sizes, hidden=arguments.hidden)
    fit = regress_costs(network, examples, costs, _TEMPERATURE, FitArguments(seed=args.seed), robust_above=1.0)
    _say(f"warm start: held-out loss {fit.held_out_losses[0]:.3f} to {min(fit.held_out_losses):.3f}")
    return network


_TEMPERATURE = 0.1  # cost difference, in SLOs, that makes a placement e times as likely in the warm-started policy


def _write_json(path: Path, value: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=str) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_main(lambda: train(parse()))
