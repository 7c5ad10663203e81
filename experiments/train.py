"""Train a policy, and compare it with the rules on requests that it never saw.

The run goes through stages. Finished work of each stage stays in --out, so the same command resumes:

1. the knee of `static` on each workload and cluster shape, the unit of every load, unless --knees has it;
2. with --rules tune, the knobs of `kairos` on a separate set of requests; by default the setting that ships for these
   SLOs and this step budget is used;
3. with --warm-start rules, a start for PPO: the best rule of each training episode, distilled into the network; with
   --warm-start lookahead, this network is then improved with placements played forward on copies of the cluster; the
   start is evaluated too;
4. PPO, from scratch or from there, on a mixture: each group of environments plays one workload on one shape under one
   range of TBT SLOs;
5. with --portfolio-episodes, a model that selects which member of a portfolio places requests, the network or a rule,
   by the regret that it predicts; the network alone is evaluated too. With --cost-generations, the portfolio also has a
   cost for each workload, shape and TBT SLO, whose weights an evolution strategy searches for. With --members, the
   network and the first costs are those of other policies, and stages 3 and 4 are left out. The episodes are written
   to episodes.npz, from which other runs can learn, too (--earlier-episodes);
6. the evaluation on unseen seeds, or on the unseen end of a trace: comparison.csv, requests.csv.gz, summary.md,
   figures/, report.html.
"""

import platform
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from agents.progress import WandbMode
from envs.choices import ChoiceSet
from envs.cluster import parse_shape
from envs.slos import Slos
from experiments.analysis.bootstrap import Interval
from experiments.learning.family_settings import family_settings
from experiments.learning.kairos_setting import shipped_settings, tuned_setting
from experiments.learning.member_selection import SelectionTraining
from experiments.learning.mixture import TRAINING_LOADS, Setting
from experiments.learning.selection_episodes import read_episodes
from experiments.learning.training_run import Learning, WarmStart, check_members, learn
from experiments.options.cluster_options import ClusterOptions
from experiments.options.execution_options import RunOptions
from experiments.options.parser import check_counts, check_positive, command, flag, option
from experiments.options.portfolio_options import PortfolioOptions
from experiments.options.request_options import KNEES, RequestOptions, trace_load_is
from experiments.options.slo_options import SloOptions
from experiments.reports.comparison_report import write_comparison
from experiments.reports.document import claim, commit, made_by, write_json
from experiments.reports.formatting import slos_line
from experiments.runs.cache import Cache
from experiments.runs.data_splits import EVALUATION_SEED
from experiments.runs.requests import TraceRequests
from experiments.runs.saturation import TARGET, knee_text, write_knees
from experiments.runs.trial import Trial, run_trials
from experiments.runs.tuning import COST_IS
from hardware_profiles import InputError
from hardware_profiles.files import replacing
from policies import PolicySpec

LOADS = (0.7, 0.95, 1.05, 1.2)
RULES = ("static", "always-local", "colocated", "shortest-ttft", "shortest-ttft:choices=pairs", "kairos")
SHIPPED_POLICY = "shipped-ppo=ppo"
_JOBS = 2


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Options of `experiments.train`."""

    timesteps: int = option(300_000, metavar="N", help="PPO decisions, rounded up to whole rollouts")
    seed: tuple[int, ...] = option(
        (0,),
        metavar="S",
        help="seed of all that the training draws; several: one policy each, from the same episodes of the rules",
    )
    requests: RequestOptions
    tbt_slos: tuple[float, ...] = option(
        (),
        metavar="S",
        help="TBT SLOs of a mixture, seconds, instead of --tbt-slo: training draws them from the ranges around these, "
        "log-uniformly; the evaluation uses these",
    )
    knees: Path | None = option(None, metavar="FILE", help=KNEES)
    cluster: tuple[str, ...] = option(("2P2D",), metavar="NPMD", help="prefill and decode nodes; several: a mixture")
    choices: ChoiceSet = option("pairs", help="set of choices that the policy chooses from")
    rules: Literal["shipped", "tune", "default"] = option(
        "shipped",
        help="setting of kairos in the comparison: the one that ships for this profile, step budget and SLOs, one "
        "tuned for this command (minutes), or only the default",
    )
    warm_start: WarmStart = option("none", help="what PPO starts from")
    warm_episodes: int = option(
        120, metavar="N", help="episodes that the rules play, and of which a third each is for a round of distillation"
    )
    portfolio: PortfolioOptions
    wandb: WandbMode = option("offline", metavar="MODE", help="offline, online or disabled")
    loads: tuple[float, ...] = option(
        (), metavar="L", help=f"of the evaluation (default {' '.join(f'{load:g}' for load in LOADS)}; 1 for a trace)"
    )
    seeds: int | None = option(
        None, metavar="N", help="evaluation seeds, none trained or tuned on (default 10; 1 for a trace)"
    )

    def __post_init__(self) -> None:
        for shape in self.cluster:
            parse_shape(shape)
            self.machines.config(shape)
        if self.tbt_slos and (self.slos.tbt_slo is not None or self.slos.slo_class):
            raise InputError("--tbt-slos goes without --tbt-slo and --slo-class only, which state the TBT SLO, too")
        families_only = {
            "tbt_slos": self.tbt_slos,
            "knees": self.knees,
            "other_profiles": self.portfolio.other_profiles,
        }
        for name, given in families_only.items():
            if given and self.requests.trace is not None:
                raise InputError(f"{flag(name)} goes with --workload only; a trace has one rate and one --tbt-slo")
        if self.knees is not None and str(self.knees) != "shipped" and len(self.tbt_slos) > 1:
            raise InputError(
                f"--knees {self.knees}: a file has the knees of one TBT SLO; shipped stands for those of several"
            )
        for slo_s in self.tbt_slos:
            SloOptions(tbt_slo=slo_s)  # says what is wrong with it
        check_counts(self, "timesteps", "warm_episodes", "seeds")
        check_positive(self, "loads")
        if self.portfolio.members and self.warm_start != "none":
            raise InputError("--members goes without --warm-start, because no network is trained")
        if min(self.seed) < 0:
            raise InputError(f"--seed {min(self.seed)}: must be 0 or more")


def run(options: TrainOptions) -> None:
    """Train, evaluate, write the folder, and print the tables."""
    began_s = time.monotonic()
    config = options.machines.config(options.cluster[0])
    profile = config.profile
    trace = options.requests.read_trace(options.slos.slos(), profile)
    if trace is not None:
        trace.check_length()
    shipped = shipped_settings(_slos(options), config) if options.rules == "shipped" else {}
    check_members(options.portfolio.members, options.choices)
    for path in options.portfolio.earlier_episodes:
        read_episodes(path)  # says what is wrong with it before anything is written
    folder = options.execution.folder("train", options)
    cache = options.execution.cache(folder, _JOBS)
    known = _family_settings(options, options.machines, cache, options.knees) if options.knees else {}
    claim(folder, "train", options)
    described = {"options": options, "training_loads": TRAINING_LOADS}
    write_json(described, folder / "config.json")
    with replacing(folder / "command.txt") as path:
        path.write_text(options.typed + "\n")

    settings, load_is = _settings(options, trace, known, folder, cache)
    elsewhere = [
        tuple(_family_settings(options, replace(options.machines, profile=name), cache))
        for name in options.portfolio.other_profiles
    ]
    loads = options.loads or ((1.0,) if trace else LOADS)
    if options.rules == "tune":
        tuned, tried = tuned_setting(settings, loads, cache)
        kairos = dict.fromkeys(settings, tuned)
        costs = {one.text: cost._asdict() for one, cost in tried.items()}
        write_json({"chosen": tuned.text, "tried": costs}, folder / "tuning.json")
        about_kairos = [
            f"`{tuned.text}` is kairos tuned on a separate set of requests: least cost within a point of the best "
            f"attainment, of {len(tried)} settings (tuning.json)"
        ]
    else:
        kairos = {one: shipped[one.tbt_slo_s] for one in settings if one.tbt_slo_s in shipped}
        about_kairos = ["`kairos-tuned` has the setting that ships for the TBT SLO"] if kairos else []
    portfolio = options.portfolio
    selection = SelectionTraining(
        portfolio.portfolio_episodes, portfolio.other_clusters, tuple(elsewhere), portfolio.earlier_episodes
    )
    learned: list[PolicySpec] = []
    for seed in options.seed:
        learning = Learning(
            tuple(settings),
            options.timesteps,
            seed,
            options.choices,
            options.warm_start,
            options.warm_episodes,
            options.seed[0],
            selection if portfolio.portfolio_episodes else None,
            portfolio.cost_generations,
            portfolio.members,
        )
        several = len(options.seed) > 1
        files = learn(learning, folder / f"seed-{seed}" if several else folder, cache, options.wandb)
        learned += [PolicySpec(f"{label}-{seed}" if several else label, "", "", path) for label, path in files.items()]

    first = 0 if trace else EVALUATION_SEED
    seeds = range(first, first + (options.seeds or (1 if trace else 10)))
    rules = [PolicySpec.parse(name) for name in (*RULES, SHIPPED_POLICY)]
    count = options.requests.requests or 1500
    trials = [
        Trial(spec, setting.name, load, seed, setting.source.evaluation(load, count, seed), setting.config)
        for setting, load, seed in product(settings, loads, seeds)
        for spec in dict.fromkeys([*rules, *([kairos[setting]] if setting in kairos else []), *learned])
    ]
    of_each = {setting.name: setting.source.own_slos for setting in settings}
    unseen = (
        "the last 25 % of the trace's span, never trained or tuned on"
        if trace
        else f"seeds {seeds[0]} to {seeds[-1]}, on which nothing was trained or tuned"
    )
    text = write_comparison(
        run_trials(trials, cache),
        "A trained policy and the rules",
        [
            *options.machines.about(*options.cluster),
            f"the policy chooses from {options.choices}",
            f"trained on loads from {TRAINING_LOADS[0]:g} to {TRAINING_LOADS[1]:g}; evaluated on {unseen}",
            f"{COST_IS}, in training and tuning",
            slos_line(of_each, native=options.requests.trace_format == "native"),
            *about_kairos,
            "`shortest-ttft` is not from a paper",
            load_is,
        ],
        {name: flat_s for name, one in of_each.items() if (flat_s := one.flat_ttft_s) is not None},
        load_is,
        folder,
        made_by=made_by(
            options.typed,
            profile,
            f"{' '.join(map(str, options.seed))} in training, {seeds[0]} to {seeds[-1]} in evaluation",
        ),
        cells_name="comparison.csv",
        bases=[
            "static",
            *dict.fromkeys(spec.label for spec in kairos.values()),
            "shortest-ttft",
            "shortest-ttft:choices=pairs",
        ],
    )
    print(text)
    meta = {
        "commit": commit(),
        "profile": profile.name,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "wall_s": time.monotonic() - began_s,
    }
    write_json(meta, folder / "meta.json")
    trained = "policy.npz" if options.portfolio.members else "policy.npz, model.zip, progress.csv"
    print(f"\nwritten to {folder}: {trained}, comparison.csv, report.html, summary.md, figures/")


def _settings(
    options: TrainOptions, trace: TraceRequests | None, known: dict[Setting, Interval], folder: Path, cache: Cache
) -> tuple[list[Setting], str]:
    """The mixture of workloads and shapes, and what a load is."""
    if trace is not None:
        names = [f"{trace.name} {shape}" if len(options.cluster) > 1 else trace.name for shape in options.cluster]
        configs = map(options.machines.config, options.cluster)
        return [Setting(name, trace, config) for name, config in zip(names, configs, strict=True)], trace_load_is(trace)
    found = known or _family_settings(options, options.machines, cache)
    named = {setting.name: knee for setting, knee in found.items()}
    write_knees(named, next(iter(found)).config, folder / "knees.json")
    print(f"knee of static, requests/s: {knee_text(named)}", file=sys.stderr)
    return list(found), (
        f"load (multiple of the rate at which static meets the SLOs of {TARGET:.0%}; requests/s: {knee_text(named)})"
    )


def _family_settings(
    options: TrainOptions, machines: ClusterOptions, cache: Cache, known: Path | None = None
) -> dict[Setting, Interval]:
    configs = [machines.config(shape) for shape in options.cluster]
    return family_settings(options.requests.workload or ("burst",), configs, _slos(options), cache, known)


def _slos(options: TrainOptions) -> list[Slos]:
    """The SLOs of the mixture."""
    return [replace(options.slos, tbt_slo=one).slos() for one in options.tbt_slos] or [options.slos.slos()]


if __name__ == "__main__":
    command(TrainOptions, run, "train", __doc__)
