"""Examples for a warm start: what each placement of a request would have cost.

At each decision every feasible placement is played forward on copies of the cluster (`policies.rollout`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

import policies
from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, ClusterConfig, request_of, view_of
from envs.objective import Objective
from envs.observation import encode
from envs.workload import Workload
from policies.rollout import placed_by, rollout_cost

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
