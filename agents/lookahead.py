"""Examples for a warm start: what each placement of a request would have cost.

At each decision every feasible placement is played forward on copies of the cluster (`policies.rollout`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

import policies
from agents.processes import finished
from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, ClusterConfig, request_of, view_of
from envs.objective import Objective
from envs.observation import encode
from envs.workload import Workload
from hardware_profiles.files import replacing
from policies.rollout import placed_by, rollout_cost

WorkloadOf = Callable[[int], Workload]
"""The workload of an episode (0, 1, ...); must be picklable."""

Examples = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LookaheadArguments:
    """How examples are collected.

    Attributes:
        episodes: workloads to play, one after another or in parallel; every request of each is an example.
        horizon_requests: arrivals that a placement is played over.
        base: policy that places them.
        choices: the set of choices that are played, see `envs.choices`.
        objective: weights of the cost, as in the environment.
        best_share: share of requests placed where it was cheapest; the examples then come from where the learner is
            going to be.
        random_share: share placed at random among the feasible choices; the rest are placed by the base policy.
        seed: of the behaviour's draws.
    """

    episodes: int = 80
    horizon_requests: int = 40
    base: str = "shortest-ttft"
    choices: ChoiceSet = "pairs"
    objective: Objective = field(default_factory=Objective)
    best_share: float = 0.35
    random_share: float = 0.15
    seed: int = 0


def play_episode(workload: Workload, config: ClusterConfig, arguments: LookaheadArguments, episode: int) -> Examples:
    """Play one workload and cost every placement of every request.

    Returns:
        Observations by name, each with a leading axis of requests, and "costs" (M, C), above the cheapest's; 0 where
        the mask is 0.
    """
    rng = np.random.default_rng(np.random.SeedSequence(arguments.seed, spawn_key=(0x100C, episode)))
    base = policies.make(arguments.base)
    requests = workload.rows()
    cluster = Cluster(config, lambda _: None)
    rows: list[dict[str, np.ndarray]] = []
    for number, request in enumerate(requests):
        cluster.clock.advance_to(request[0])
        asked = view_of(number, request)
        placement = placed_by(base, asked, cluster.view())  # asked each time: it may remember what it was asked
        choices = Choices.of(asked, cluster.view(), arguments.choices)
        feasible = choices.feasible_rows()
        costs = np.full(len(choices), np.inf)
        for row in feasible:
            costs[row] = rollout_cost(
                cluster,
                choices.placement(row),
                number,
                requests,
                base,
                horizon_requests=arguments.horizon_requests,
                objective=arguments.objective,
            )
        rows.append(
            {
                **encode(choices),
                "costs": np.where(np.isfinite(costs), costs - costs.min(), 0.0).astype(np.float32),
            }
        )
        draw = rng.random()
        if draw < arguments.best_share:
            placement = choices.placement(int(np.argmin(costs)))
        elif draw < arguments.best_share + arguments.random_share:
            placement = choices.placement(int(rng.choice(feasible)))
        cluster.submit(request_of(number, request), placement)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def collect(
    workload_of: WorkloadOf,
    config: ClusterConfig,
    arguments: LookaheadArguments,
    folder: Path,
    jobs: int = 1,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Examples:
    """Play all episodes, each kept in a file of `folder` when done; those there already are not played again.

    Args:
        workload_of: the workload of each episode.
        config: the cluster.
        arguments: how.
        folder: where episodes are kept; must be of the same arguments and workloads.
        jobs: processes.
        on_progress: called with the number of episodes done.

    Returns:
        All examples, as `play_episode`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"episode-{episode:04d}.npz" for episode in range(arguments.episodes)]
    missing = [episode for episode, path in enumerate(paths) if not path.exists()]
    on_progress(len(paths) - len(missing))
    play = partial(_keep, workload_of, config, arguments)
    tasks = [(episode, paths[episode]) for episode in missing]
    for done, _ in enumerate(finished(play, tasks, jobs), start=1):
        on_progress(len(paths) - len(missing) + done)
    episodes = []
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            episodes.append(dict(arrays))
    return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}


def _keep(
    workload_of: WorkloadOf, config: ClusterConfig, arguments: LookaheadArguments, task: tuple[int, Path]
) -> None:
    episode, path = task
    examples = play_episode(workload_of(episode), config, arguments, episode)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **examples)
