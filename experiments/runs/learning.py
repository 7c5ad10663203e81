"""Learning a policy: PPO on a mixture of workloads and cluster shapes, from scratch or from look-ahead costs."""

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agents.episodes import FIRST_TRAINING_SEED, TrainingSeeds
from agents.lookahead_costs import LookaheadArguments, play_episode
from agents.placement_policy import current_layout
from agents.progress import ProgressLine, WandbMode
from envs.choices import ChoiceSet, most_choices
from envs.cluster import ClusterConfig, parse_shape
from envs.objective import TUNING_OBJECTIVE
from envs.workload import Workload
from experiments.runs import fingerprint
from experiments.runs.cache import Cache, Result, Task, packed
from experiments.runs.requests import Source
from hardware_profiles import InputError
from hardware_profiles.files import replacing

if TYPE_CHECKING:  # torch is slow to import, and invalid input should be reported at once
    from agents.placement_network import PlacementNetwork

WarmStart = Literal["lookahead", "none"]
TRAINING_LOADS = (0.5, 1.15)
_WARM_EPISODE_REQUESTS = 256
_GROUPS = 8  # groups of environments, at least; each plays the same arrivals
_TEMPERATURE = 0.1  # cost difference, in SLOs, that makes a placement e times as likely in the warm-started policy
_START: dict[str, Any] = {
    "start": "running",
    "warm_up": ("static", "shortest-ttft", "random"),
    "warm_up_s": (0.0, 15.0),
}


@dataclass(frozen=True)
class Setting:
    """A workload on a cluster.

    `cluster_fields` are those of the config that differ from the defaults, beyond profile, shape, step budget and
    report age.
    """

    name: str
    source: Source
    config: ClusterConfig
    cluster_fields: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Learning:
    """A training run: PPO on a mixture of settings; each group of environments plays one of them."""

    settings: tuple[Setting, ...]
    timesteps: int  # decisions of PPO
    seed: int
    choices: ChoiceSet
    warm_start: WarmStart = "none"
    warm_episodes: int = 80


def learn(learning: Learning, folder: Path, cache: Cache, wandb_mode: WandbMode) -> dict[str, Path]:
    """Train, or resume a training run; returns the policies' files by label, the warm start first if there is one.

    Raises InputError (`folder` holds a policy that was trained otherwise).
    """
    import torch

    from agents import ppo, training
    from agents.export import save_policy
    from agents.vec_env import PlacementVecEnv
    from envs.placement_env import PrefillPlacementEnv

    policy_path, warm_path = folder / "policy.npz", folder / "warm-start.npz"
    found = {"ppo": policy_path} if learning.warm_start == "none" else {"warm-start": warm_path, "ppo": policy_path}
    note = folder / "training-identity.txt"
    clusters = [fingerprint.cluster(setting.config) for setting in learning.settings]
    identity = fingerprint.digest(fingerprint.code(__name__, "agents.training"), repr(learning), *clusters)
    trained = policy_path.exists() or (folder / "checkpoint.pt").exists()
    if trained and note.exists() and note.read_text() != identity:
        raise InputError(
            f"{folder} holds a policy that was trained with other options or other code; give another --out, or delete "
            "it"
        )
    with replacing(note) as path:
        path.write_text(identity)
    if policy_path.exists():
        print(f"{policy_path} is trained already", file=sys.stderr)
        return found
    torch.set_num_threads(1)
    gc.freeze()  # torch and the rest of the imports live forever
    settings = learning.settings
    arguments = ppo.PPOArguments(timesteps=learning.timesteps, seed=learning.seed).for_groups(
        len(settings) * -(-_GROUPS // len(settings))
    )
    shapes = list(dict.fromkeys(setting.config.shape for setting in settings))
    described = {
        **asdict(arguments),
        "settings": [setting.name for setting in settings],
        "clusters": shapes,
        "profile": settings[0].config.profile.name,
        "step_budget": settings[0].config.step_budget,
    }
    layout = current_layout(learning.choices)
    weights = None
    if learning.warm_start != "none":
        network = _warm_start(learning, arguments.hidden, cache)
        save_policy(warm_path, network, layout, {**described, "warm_start_only": True})
        weights = network.state_dict()
    rows = max(most_choices(learning.choices, *parse_shape(shape)) for shape in shapes)
    seeds = TrainingSeeds(arguments.seed, arguments.rollouts_per_arrivals)

    def make_env(setting: Setting) -> PrefillPlacementEnv:
        return PrefillPlacementEnv(
            setting.config.profile,
            setting.config.shape,
            learning.choices,
            step_budget=setting.config.step_budget,
            report_age_s=setting.config.report_age_s,
            hosts=setting.config.hosts,
            cluster_options={name: value for name, value in setting.cluster_fields if name != "hosts"},
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
            processes=min(cache.execution.jobs or 1, os.cpu_count() or 1),
        )

    model = training.train(
        make_vec_env,
        arguments,
        folder,
        initial_weights=weights,
        on_progress=ProgressLine(learning.timesteps),
        wandb_mode=wandb_mode,
        resume=(folder / "checkpoint.pt").exists(),
    )
    save_policy(policy_path, model.policy.network, layout, described)
    return found


@dataclass(frozen=True)
class LookaheadEpisode(Task):
    """An episode in which every placement of every request is costed; `episode` is its number."""

    source: Source
    config: ClusterConfig
    arguments: LookaheadArguments
    episode: int

    def __str__(self) -> str:
        return f"look-ahead episode {self.episode}"

    def run(self, inputs: None) -> Result:  # noqa: ARG002 - there are none
        """Play the episode at a load drawn uniformly."""
        rng = np.random.default_rng(np.random.SeedSequence(self.arguments.seed, spawn_key=(0xE915, self.episode)))
        workload = draw_for_training(self.source, _WARM_EPISODE_REQUESTS, rng)
        return Result(None, {".npz": packed(**play_episode(workload, self.config, self.arguments, self.episode))})


def draw_for_training(source: Source, requests: int, rng: np.random.Generator) -> Workload:
    """Requests at a load drawn uniformly from TRAINING_LOADS."""
    load = float(rng.uniform(*TRAINING_LOADS))
    return source.draw(requests, load, FIRST_TRAINING_SEED + int(rng.integers(2**31)))


def _warm_start(learning: Learning, hidden: int, cache: Cache) -> "PlacementNetwork":
    """A network fitted to the costs of placements played forward; the settings take turns, all on one cluster."""
    import torch

    from agents.placement_network import PlacementNetwork
    from agents.pretrain import FitArguments, regress_costs

    lookahead = LookaheadArguments(
        episodes=learning.warm_episodes, objective=TUNING_OBJECTIVE, choices=learning.choices, seed=learning.seed
    )
    settings = learning.settings
    episodes = [
        LookaheadEpisode(settings[i % len(settings)].source, settings[0].config, lookahead, i)
        for i in range(learning.warm_episodes)
    ]
    played = [entry.arrays(".npz") for entry in cache.run(episodes, "look-ahead episodes")]
    examples = {name: np.concatenate([episode[name] for episode in played]) for name in played[0]}
    costs = examples.pop("costs")
    torch.manual_seed(learning.seed)
    network = PlacementNetwork(current_layout(learning.choices).sizes, hidden=hidden)
    fitting = FitArguments(seed=learning.seed)
    fit = regress_costs(network, examples, costs, _TEMPERATURE, fitting, robust_above=1.0)
    print(f"warm start: held-out loss {fit.held_out_losses[0]:.3f} to {min(fit.held_out_losses):.3f}", file=sys.stderr)
    return network
