"""A training run: PPO on a mixture, from scratch or from a warm start."""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from agents.episodes import TrainingSeeds
from agents.placement_policy import current_layout
from agents.policy_file import PolicyFile, load_policy, write_policy
from agents.progress import ProgressLine, WandbMode
from agents.seen import SeenRange, fold_constants
from envs.choices import ChoiceSet, most_choices
from envs.cluster import parse_shape
from experiments.learning.cost_search import new_name, search_costs
from experiments.learning.distilled_start import Distillation, best_p95_s, play_rules, shared_out
from experiments.learning.improved_start import improve
from experiments.learning.member_selection import SelectionTraining, select_members
from experiments.learning.mixture import Setting, objective_for
from experiments.runs import fingerprint
from experiments.runs.cache import Cache
from hardware_profiles import InputError
from hardware_profiles.files import replacing

if TYPE_CHECKING:  # torch is slow to import, and invalid input should be reported at once
    from agents.placement_network import PlacementNetwork
    from agents.ppo import PPOArguments
    from agents.vec_env import PlacementVecEnv

WarmStart = Literal["rules", "lookahead", "none"]
_GROUPS = 8  # groups of environments, at least; each plays the same arrivals
_CURRICULUM_ROUNDS = 2  # of the distillation, after two on all settings evenly
_YARDSTICK_EPISODES = 4  # of each setting, if there is no distillation


@dataclass(frozen=True)
class Learning:
    """A training run: PPO on a mixture of settings; each group of environments plays one of them."""

    settings: tuple[Setting, ...]
    timesteps: int  # decisions of PPO
    seed: int
    choices: ChoiceSet
    warm_start: WarmStart = "none"
    warm_episodes: int = 120
    lessons_seed: int = 0  # of the episodes that the rules play
    selection: SelectionTraining | None = (
        None  # among the members of a portfolio; None: the network places all requests
    )
    cost_generations: int = 0  # of the search for each cost of the portfolio; 0: none is searched
    members: tuple[Path, ...] = ()
    """Policy files with the first costs of the portfolio; the first one has its network and its first selection, too.
    Without any, the network is trained here."""


def check_members(files: Sequence[Path], choices: ChoiceSet) -> None:
    """Raise InputError unless all are policy files and the first one's network has this set of choices."""
    found = [load_policy(path).layout.choice_set for path in files]
    if files and found[0] != choices:
        raise InputError(f"--members {files[0]}: its network chooses from {found[0]}, not from {choices}")


def learn(learning: Learning, folder: Path, cache: Cache, wandb_mode: WandbMode) -> dict[str, Path]:
    """Train, or resume a training run; returns the policies' files by label.

    "warm-start" is the network before PPO, "network" the one after it if there is a portfolio, too, and "ppo" the
    finished policy.

    Raises InputError (`folder` holds a policy that was trained otherwise).
    """
    policy_path, warm_path = folder / "policy.npz", folder / "warm-start.npz"
    network_path = folder / "network.npz" if learning.selection else policy_path
    found = {} if learning.warm_start == "none" else {"warm-start": warm_path}
    found |= {"network": network_path} if learning.selection else {}
    found["ppo"] = policy_path
    folder.mkdir(parents=True, exist_ok=True)
    _claim(learning, folder, policy_path)
    if policy_path.exists():
        print(f"{policy_path} is trained already", file=sys.stderr)
        return found
    files = [load_policy(path) for path in learning.members]
    costs = _costs(files)
    if files:
        write_policy(network_path, files[0]._replace(regret=None, costs={}))
    elif not network_path.exists():
        _train_network(learning, network_path, warm_path, cache, wandb_mode)
    if learning.selection:
        members_path = network_path
        if learning.cost_generations:
            costs = search_costs(learning.settings, learning.cost_generations, learning.lessons_seed, cache, costs)
        if costs:
            members_path = folder / "members.npz"
            write_policy(members_path, load_policy(network_path)._replace(costs=costs))
        select_members(
            members_path,
            policy_path,
            learning.settings,
            learning.selection,
            learning.choices,
            (learning.lessons_seed, learning.seed),
            cache,
            files[0].regret.members if files and files[0].regret else (),
        )
    return found


def _costs(files: Sequence[PolicyFile]) -> dict[str, np.ndarray]:
    """The costs of policies; a name that stands for other weights in an earlier file gets a number."""
    found: dict[str, np.ndarray] = {}
    for file in files:
        for name, weights in file.costs.items():
            if not any(np.array_equal(weights, one) for one in found.values()):
                found[new_name(name, found)] = weights
    return found


def _train_network(
    learning: Learning, network_path: Path, warm_path: Path, cache: Cache, wandb_mode: WandbMode
) -> None:
    """Train the network, or resume its training."""
    import torch

    from agents import ppo, training
    from agents.policy_file import save_policy

    folder = network_path.parent
    torch.set_num_threads(1)
    gc.freeze()  # torch and the rest of the imports live forever
    settings = learning.settings
    arguments = ppo.PPOArguments(timesteps=learning.timesteps, seed=learning.seed)
    if learning.warm_start != "none":
        arguments = ppo.refining(arguments)
    described = {
        **asdict(arguments),
        "settings": [setting.name for setting in settings],
        "clusters": list(dict.fromkeys(setting.config.shape for setting in settings)),
        "profile": settings[0].config.profile.name,
        "step_budget": settings[0].config.step_budget,
    }
    layout = current_layout(learning.choices)
    start = _start(learning, arguments.hidden, folder, cache, described)
    network, seen = start.network, start.seen
    arguments = arguments.for_groups(len(start.groups))
    described |= asdict(arguments)
    if network is not None:
        save_policy(warm_path, _finished(network, seen), layout, {**described, "warm_start_only": True}, seen)
    model = training.train(
        lambda first_episodes: _environments(learning, arguments, first_episodes, start, cache),
        arguments,
        folder,
        initial_weights=None if network is None else network.state_dict(),
        on_progress=ProgressLine(learning.timesteps),
        wandb_mode=wandb_mode,
        resume=(folder / "checkpoint.pt").exists(),
    )
    save_policy(network_path, _finished(model.policy.network, seen), layout, described, seen)


def _finished(network: "PlacementNetwork", seen: SeenRange | None) -> "PlacementNetwork":
    """A copy of a network without weights of features that did not vary in what its start was fitted to."""
    finished = deepcopy(network)
    if seen is not None:
        fold_constants(finished, seen)
    return finished


def _claim(learning: Learning, folder: Path, policy_path: Path) -> None:
    """Write down what is trained in a folder; raise InputError if something else was."""
    note = folder / "training-identity.txt"
    selection = learning.selection
    settings = chain(learning.settings, *(selection.elsewhere if selection else ()))
    clusters = [fingerprint.cluster(setting.config) for setting in settings]
    described = repr(replace(learning, members=(), selection=selection and replace(selection, earlier=())))
    files = (*learning.members, *(selection.earlier if selection else ()))
    identity = fingerprint.digest(fingerprint.code(__name__, "agents.training"), described, *clusters, files=files)
    trained = policy_path.exists() or (folder / "checkpoint.pt").exists()
    if trained and note.exists() and note.read_text() != identity:
        raise InputError(
            f"{folder} holds a policy that was trained with other options or other code; give another --out, or delete "
            "it"
        )
    with replacing(note) as path:
        path.write_text(identity)


class Start(NamedTuple):
    """The start of PPO.

    Attributes:
        network: its first weights; None: random ones.
        seen: the range of what the network was fitted to.
        yardstick_s: the best rule's P95 TTFT on each setting, seconds.
        groups: the setting that each group of environments plays.
    """

    network: "PlacementNetwork | None"
    seen: SeenRange | None
    yardstick_s: Mapping[Setting, float]
    groups: Sequence[Setting]


def _start(learning: Learning, hidden: int, folder: Path, cache: Cache, described: Mapping[str, Any]) -> Start:
    settings, seed, lessons_seed = learning.settings, learning.seed, learning.lessons_seed
    evenly = list(settings) * -(-_GROUPS // len(settings))
    half = max(1, learning.warm_episodes // 2)

    def in_turn(count: int) -> list[Setting]:
        return [settings[i % len(settings)] for i in range(max(count, len(settings)))]

    if learning.warm_start == "none":
        lessons = play_rules(in_turn(_YARDSTICK_EPISODES * len(settings)), lessons_seed, 0, cache)
        return Start(None, None, best_p95_s(lessons), evenly)
    lessons = play_rules(in_turn(2 * half), lessons_seed, 0, cache)
    distilled = Distillation(learning.choices, seed, hidden, folder, cache, described)
    distilled.fit(lessons[:half], lessons)
    distilled.fit(lessons[half:], lessons)
    for _ in range(_CURRICULUM_ROUNDS):
        gaps = distilled.gaps(lessons[:half])
        first = lessons[-1].episode + 1
        more = play_rules(shared_out(half, gaps), lessons_seed + 1 + seed, first, cache)
        lessons = [*lessons, *more]
        distilled.fit(more, lessons)
    gaps = distilled.gaps(lessons[:half])
    for setting, gap in sorted(gaps.items(), key=lambda item: -item[1])[:5]:
        print(f"farthest behind the best rule: {setting.name}, {gap:.3f}", file=sys.stderr)
    yardstick_s = best_p95_s(lessons)
    if learning.warm_start == "lookahead":
        improve(distilled, settings, lessons, yardstick_s, learning.warm_episodes, learning.choices, cache)
    return Start(distilled.network, distilled.seen, yardstick_s, [*evenly, *shared_out(len(evenly), gaps)])


def _environments(
    learning: Learning,
    arguments: "PPOArguments",
    first_episodes: Sequence[int],
    start: Start,
    cache: Cache,
) -> "PlacementVecEnv":
    from agents.vec_env import PlacementVecEnv

    settings = learning.settings
    rows = max(most_choices(learning.choices, *parse_shape(setting.config.shape)) for setting in settings)
    seeds = TrainingSeeds(arguments.seed, arguments.rollouts_per_arrivals)
    played = [start.groups[seeds.stream(index)] for index in range(len(first_episodes))]
    best = {setting: start.yardstick_s[setting] / setting.ttft_slo_s for setting in settings}
    return PlacementVecEnv(
        [setting.environment(learning.choices, rows, objective_for(best[setting])) for setting in played],
        seeds,
        first_episodes,
        [setting.source.reward_scale / best[setting] for setting in played],
        processes=min(cache.execution.jobs or 1, os.cpu_count() or 1),
    )
