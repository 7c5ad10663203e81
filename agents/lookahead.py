"""What each placement of a request would have cost, found by playing it forward on copies of the cluster.

At each decision every feasible placement is played over the same next arrivals, a base policy placing the rest; a
placement's cost is the environment's own (waiting for first tokens plus TBT excess) by the time all of them have their
first token. The futures are common, so differences between placements carry little noise. Knowing the true arrivals
makes this a teacher, never a policy to deploy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import policies
from agents.processes import finished
from envs.candidates import Candidate, candidates
from envs.cluster import Cluster, ClusterConfig, Policy, RequestView, Sequence
from envs.observation import encode_candidates
from envs.workload import Row, Workload
from hardware_profiles.files import replacing

WorkloadOf = Callable[[int], Workload]
"""The workload of an episode (0, 1, ...); must be picklable."""

Examples = Mapping[str, np.ndarray]

_SETTLE_S = 10.0  # how long a rollout may wait for its last first tokens


@dataclass(frozen=True)
class LookaheadArguments:
    """How examples are collected.

    Attributes:
        episodes: workloads to play, one after another or in parallel; every request of each is an example.
        horizon_requests: arrivals that a placement is played over.
        base: policy that places them.
        tbt_weight: weight of the TBT excess, as in the environment.
        tail_weight: weight of the squared waits, likewise.
        best_share: share of requests placed where it was cheapest; the examples then come from where the learner is
            going to be.
        random_share: share placed at random among the feasible nodes; the rest are placed by the base policy.
        seed: of the behaviour's draws.
    """

    episodes: int = 80
    horizon_requests: int = 40
    base: str = "shortest-ttft"
    tbt_weight: float = 1.0
    tail_weight: float = 0.0
    best_share: float = 0.35
    random_share: float = 0.15
    seed: int = 0


def view_of(number: int, requests: list[Row]) -> RequestView:
    """A request as the router sees it."""
    arrival_s, prompt_tokens, _, ttft_slo_s, tbt_slo_s, hashes = requests[number]
    return RequestView(number, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes)


def placement_costs(
    cluster: Cluster,
    number: int,
    requests: list[Row],
    found: list[Candidate],
    base: Policy,
    arguments: LookaheadArguments,
) -> np.ndarray:
    """Cost of each candidate placement of request `number`, arriving now; inf where it is not feasible.

    Returns:
        (len(found),) cost from now on in units of SLOs, up to a constant that all placements share.
    """
    costs = np.full(len(found), np.inf)
    last = min(len(requests), number + 1 + arguments.horizon_requests)
    for index, choice in enumerate(found):
        if not choice.feasible:
            continue
        twin = cluster.copy(lambda _: None)
        clock = twin.clock
        view = twin.view()
        twin.submit(Sequence(number, *requests[number]), choice.placement)
        for later in range(number + 1, last):
            clock.advance_to(requests[later][0])
            twin.submit(Sequence(later, *requests[later]), base.place(view_of(later, requests), view))
        until_s = clock.now + _SETTLE_S
        while twin.waiting.requests and clock.peek() < until_s:
            clock.step()
        costs[index] = (
            twin.waiting_cost() + arguments.tail_weight * twin.tail_cost() + arguments.tbt_weight * twin.tbt_cost()
        )
    return costs


def play_episode(workload: Workload, config: ClusterConfig, arguments: LookaheadArguments, episode: int) -> Examples:
    """Play one workload and cost every placement of every request.

    Returns:
        Observations by name, each with a leading axis of requests, and "costs" (M, N), 0 where the mask is 0.
    """
    rng = np.random.default_rng(np.random.SeedSequence(arguments.seed, spawn_key=(0x100C, episode)))
    base = policies.make(arguments.base)
    requests = workload.rows()
    cluster = Cluster(config, lambda _: None)
    rows: list[dict[str, np.ndarray]] = []
    for number, request in enumerate(requests):
        cluster.clock.advance_to(request[0])
        asked = view_of(number, requests)
        found = candidates(asked, cluster.view())
        costs = placement_costs(cluster, number, requests, found, base, arguments)
        rows.append(
            {
                **encode_candidates(asked, cluster.view(), found),
                "costs": np.where(np.isfinite(costs), costs, 0.0).astype(np.float32),
            }
        )
        draw = rng.random()
        if draw < arguments.best_share:
            placement = found[int(np.argmin(costs))].placement
        elif draw < arguments.best_share + arguments.random_share:
            placement = found[int(rng.choice(np.flatnonzero(np.isfinite(costs))))].placement
        else:
            placement = base.place(asked, cluster.view())
        cluster.submit(Sequence(number, *request), placement)
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
