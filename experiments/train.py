"""`python -m experiments.train`: train a policy, and set it beside the heuristics on requests it never saw.

The run goes through stages, each kept in --out when done; the same command goes on where it was stopped.

1. The knee of `static`, the load that every other load is a multiple of.
2. The knobs of `kairos` tuned on requests of their own, by the cost that the policy learns to minimise.
3. With --warm-start lookahead, a start for PPO: placements played forward on copies of the cluster, their costs
   fitted by the network. It is evaluated too.
4. PPO, from scratch or from there.
5. Evaluation on unseen seeds, or the unseen end of a trace: comparison.csv, requests.csv.gz, summary.md, figures/,
   report.html.
"""

import json
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.lookahead import LookaheadArguments, collect
from agents.placement_policy import current_layout
from envs.cluster import ClusterConfig
from envs.generators import families, generate, slos_of_family
from envs.objective import TUNING_OBJECTIVE
from envs.traces import formats, read_trace, slos_of_format
from experiments.arguments import add_step_budget
from experiments.cells import Cell, run_cells
from experiments.digests import config_digest, digest, simulation_digest
from experiments.knee import TARGET, knees
from experiments.output import claim, commit, write_all
from experiments.provenance import made_by
from experiments.sources import EVALUATION_SEED, TUNING_SEEDS, Arrivals, Episodes, Family, Source, Trace
from experiments.tuning import tuned
from hardware_profiles import InputError, load_profile
from hardware_profiles.cli import Parser, run_main
from hardware_profiles.files import replacing

if TYPE_CHECKING:  # torch is slow to import, and a mistake in the arguments should be told at once
    from agents.network import PlacementNetwork
    from agents.ppo import PPOArguments

LOADS = [0.7, 0.95, 1.05, 1.2]
TRAINING_LOADS = (0.5, 1.3)
HEURISTICS = ["static", "round-robin", "always-local", "shortest-ttft", "kairos"]

_EPISODE_REQUESTS = 256
_TUNING_REQUESTS = 1000


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
    source.add_argument("--workload", default="burst", metavar="W", help=f"family: {', '.join(families())}")
    source.add_argument("--trace", type=Path, metavar="FILE", help="train on the first 60 %% of a recorded workload")
    add("--trace-format", choices=formats(), metavar="F", help=f"{', '.join(formats())}; needed with --trace")
    add("--rate-scale", type=float, metavar="X", help="compress the trace's time by X (default 1)")
    add("--profile", default="a100-qwen3-8b", metavar="P", help="hardware profile, name or path (default %(default)s)")
    add("--cluster", default="2P2D", metavar="NPMD", help="prefill and decode nodes (default %(default)s)")
    add_step_budget(parser)
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
    add("--jobs", type=int, default=2, metavar="N", help="processes for all but PPO (default %(default)s)")
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
                raise InputError(f"--{name.replace('_', '-')} goes with --trace only")
        if args.workload not in families():
            raise InputError(f"unknown workload {args.workload!r}; known: {', '.join(families())}")
        defaults = {"seeds": 10, "loads": LOADS}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ("timesteps", "warm_episodes", "seeds", "requests", "jobs"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must be 0 or more")
    for load in args.loads:
        if not 0 < load < inf:
            raise InputError(f"--loads {load:g}: must be a finite number above 0")
    return args


def train(args: Namespace) -> None:
    """Do what `parse` read: train, evaluate, write the folder, print the tables."""
    began_s = time.monotonic()
    config = ClusterConfig(load_profile(args.profile), shape=args.cluster, step_budget=args.step_budget)
    trace = read_trace(args.trace, args.trace_format, rate_scale=args.rate_scale) if args.trace else None

    command = {name: value for name, value in vars(args).items() if name not in ("out", "jobs", "line")}
    identity = json.dumps(command, default=str)
    folder = args.out or Path("runs") / f"train-{digest(identity)}"
    fingerprint = digest(identity, config_digest(config), simulation_digest(), files=[args.trace] if args.trace else [])
    claim(folder, command)
    _write_json(
        folder / "config.json",
        {**command, "tail_weight": TUNING_OBJECTIVE.tail_weight, "training_loads": TRAINING_LOADS},
    )
    with replacing(folder / "command.txt") as path:
        path.write_text(f"python -m experiments.train {args.line}\n")

    source: Source
    if trace is not None:
        source = Trace(args.trace.name.partition(".")[0], trace)
        load_is = f"load (multiple of rate scale {args.rate_scale:g})"
    else:
        at_rate = {args.workload: partial(generate, args.workload, requests=args.requests)}
        knee = knees(at_rate, config, folder / "cells", fingerprint=fingerprint, jobs=args.jobs)[args.workload]
        _say(f"knee of static on {args.workload}: {knee:.2f} requests/s")
        source = Family(args.workload, knee)
        load_is = f"load (multiple of {knee:.2f} requests/s, at which static meets the SLOs of {TARGET:.0%})"

    seeds = TUNING_SEEDS[:1] if trace is not None else TUNING_SEEDS
    tuning = [source.tuning(_TUNING_REQUESTS, load, seed) for load in args.loads for seed in seeds]
    kairos, tried = tuned("kairos", tuning, config, objective=TUNING_OBJECTIVE, jobs=args.jobs)
    _write_json(
        folder / "tuning.json", {"chosen": kairos, "tried": {name: found._asdict() for name, found in tried.items()}}
    )
    _say(f"tuned: {kairos}")

    learned = _learn(args, source, config, folder)

    names = [*HEURISTICS, kairos, *learned]
    first = 0 if trace else EVALUATION_SEED
    keys = product(args.loads, range(first, first + args.seeds), names)
    cells = [Cell(policy, source.name, load, seed) for load, seed, policy in keys]
    trained = digest(fingerprint, files=[Path(name.partition("=")[2]) for name in learned])
    outcomes = run_cells(
        cells,
        lambda _, load, seed: source.evaluation(args.requests, load, seed),
        config,
        folder / "cells",
        fingerprint=trained,
        jobs=args.jobs,
    )
    slos = slos_of_format(args.trace_format) if trace else slos_of_family(args.workload)
    flat_s = slos.flat_ttft_s
    about = [
        f"cluster {config.shape} of {config.profile.name}; step budget {config.step_budget}",
        f"node reports {config.report_age_s * 1e3:g} ms old",
        f"trained on loads from {TRAINING_LOADS[0]:g} to {TRAINING_LOADS[1]:g}; evaluated on "
        + (
            "the last 25 % of the trace's span, never trained or tuned on"
            if trace
            else f"seeds {EVALUATION_SEED} to {EVALUATION_SEED + args.seeds - 1}, on which nothing was trained or tuned"
        ),
        f"cost that was minimised: TTFT / SLO + {TUNING_OBJECTIVE.tail_weight:g} (TTFT / SLO)^2 + TBT excess; SLOs, "
        f"our choice: {slos}",
        f"`{kairos}` is kairos tuned on other requests: least cost within a point of the best attainment, of "
        f"{len(tried)} settings (tuning.json); `shortest-ttft` is ours",
        load_is,
    ]
    print(
        write_all(
            outcomes,
            "A trained policy beside the heuristics",
            about,
            {source.name: flat_s} if flat_s is not None else {},
            load_is,
            folder,
            cells_name="comparison.csv",
            bases=["static", kairos, "shortest-ttft"],
            made_by=made_by(
                f"python -m experiments.train {args.line}".rstrip(),
                config.profile,
                f"{args.seed} in training, {first} to {first + args.seeds - 1} in evaluation",
            ),
        )
    )
    _write_json(
        folder / "meta.json",
        {
            "commit": commit(),
            "profile": config.profile.name,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "wall_s": time.monotonic() - began_s,
        },
    )
    print(
        f"\nwritten to {folder}: policy.npz, model.zip, progress.csv, comparison.csv, report.html, summary.md, figures/"
    )


def _learn(args: Namespace, source: Source, config: ClusterConfig, folder: Path) -> list[str]:
    """Train; returns the names of the policies to evaluate, warm start first where there is one."""
    import torch

    from agents.export import save_policy
    from agents.network import PlacementNetwork
    from agents.ppo import PPOArguments
    from agents.progress import ProgressLine
    from agents.training import train as train_ppo
    from envs.placement_env import PrefillPlacementEnv

    policy_path, warm_path = folder / "policy.npz", folder / "warm-start.npz"
    arrivals = Arrivals(source, *TRAINING_LOADS)
    arguments = PPOArguments(timesteps=args.timesteps, seed=args.seed)
    names = [f"ppo={policy_path}"] if args.warm_start == "none" else [f"warm-start={warm_path}", f"ppo={policy_path}"]
    if policy_path.exists():
        _say(f"{policy_path} is there already")
        return names
    torch.set_num_threads(1)
    described = {**asdict(arguments), "source": source.name, "cluster": config.shape, "profile": config.profile.name}
    described["step_budget"] = config.step_budget

    weights = None
    if args.warm_start != "none":
        network = _warm_start(args, arrivals, config, folder, arguments)
        save_policy(warm_path, network, current_layout(), {**described, "warm_start_only": True})
        weights = network.state_dict()

    def make_env(_: int) -> PrefillPlacementEnv:
        return PrefillPlacementEnv(
            config.profile,
            config.shape,
            workload=arrivals,
            rate_rps=TRAINING_LOADS,
            horizon_requests=_EPISODE_REQUESTS,
            tail_weight=TUNING_OBJECTIVE.tail_weight,
            cluster_options={"step_budget": config.step_budget},
        )

    model = train_ppo(
        make_env,
        arguments,
        folder,
        initial_weights=weights,
        on_progress=ProgressLine(args.timesteps),
        wandb_mode=args.wandb,
        resume=(folder / "checkpoint.pt").exists(),
    )
    network_trained: PlacementNetwork = model.policy.network
    save_policy(policy_path, network_trained, current_layout(), described)
    return names


def _warm_start(
    args: Namespace, arrivals: Arrivals, config: ClusterConfig, folder: Path, arguments: "PPOArguments"
) -> "PlacementNetwork":
    """A network fitted to the costs of placements played forward."""
    import torch

    from agents.network import PlacementNetwork
    from agents.pretrain import FitArguments, regress_costs

    lookahead = LookaheadArguments(episodes=args.warm_episodes, objective=TUNING_OBJECTIVE, seed=args.seed)
    began_s = time.monotonic()

    def show(done: int) -> None:
        if done % 10 == 0 or done == args.warm_episodes:
            _say(f"look-ahead episodes: {done}/{args.warm_episodes}, {time.monotonic() - began_s:.0f} s")

    examples = dict(
        collect(
            Episodes(arrivals, _EPISODE_REQUESTS, args.seed), config, lookahead, folder / "lookahead", args.jobs, show
        )
    )
    costs = examples.pop("costs")
    torch.manual_seed(args.seed)
    network = PlacementNetwork(current_layout().sizes, hidden=arguments.hidden)
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
