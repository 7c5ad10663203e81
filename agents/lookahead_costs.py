"""Examples for policy improvement: what each placement of a request would have cost.

At some decisions every feasible placement is played forward on copies of the cluster (`policies.rollout`), with the
same later requests, which a base policy places. A network that lowers the expected cost of its choices becomes one step
better than the base: approximate policy iteration with rollouts (Bertsekas, Tsitsiklis and Wu 1997), on the states that
the network visits (AggreVaTe; Ross and Bagnell 2014, arXiv 1406.5979).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from agents.numpy_policy import NumpyActor
from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, ClusterConfig, Policy, request_of, view_of
from envs.objective import Objective
from envs.observation import encode
from envs.warm_up import WarmUp, warm
from envs.workload import Workload
from policies.rollout import rollout_cost

Examples = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LookaheadArguments:
    """How examples are collected.

    Attributes:
        choices: the set of choices that are played, see `envs.choices`.
        objective: weights of the cost, as in the environment.
        decisions: number of decisions of an episode whose placements are played.
        horizon_s: arrivals of so many seconds are simulated after the request, at least `fewest` and at most `most`.
        fewest: see above.
        most: see above.
    """

    choices: ChoiceSet = "pairs"
    objective: Objective = field(default_factory=Objective)
    decisions: int = 60
    horizon_s: float = 2.0
    fewest: int = 16
    most: int = 200


def cost_episode(
    workload: Workload,
    config: ClusterConfig,
    base: Policy,
    learner: NumpyActor,
    warm_up: WarmUp,
    warm_up_requests: int,
    arguments: LookaheadArguments,
    rng: np.random.Generator,
) -> Examples:
    """Play a workload with the learner's choices, and cost every placement of some requests drawn at random.

    Args:
        workload: the requests.
        config: the cluster.
        base: places the later requests when a placement is played forward; its own state is not used.
        learner: places the requests after the warm-up.
        warm_up: places the first `warm_up_requests` requests.
        warm_up_requests: see above.
        arguments: what is collected.
        rng: draws the decisions that are costed.

    Returns:
        Observations by name, each with a leading axis of examples, "scores" (M, C), the learner's, and "costs" (M, C),
        above the least; 0 where the mask is 0.
    """
    requests = workload.rows()
    cluster = Cluster(config, lambda _: None)
    warm(cluster, requests, warm_up_requests, warm_up, arguments.choices, rng)
    view = cluster.view()
    last = len(requests) - arguments.fewest
    costed = set(
        rng.choice(np.arange(warm_up_requests, last), min(arguments.decisions, last - warm_up_requests), replace=False)
    )
    rows: list[dict[str, np.ndarray]] = []
    for number in range(warm_up_requests, last):
        request = requests[number]
        cluster.clock.advance_to(request[0])
        choices = Choices.of(view_of(number, request), view, arguments.choices)
        observation = encode(choices)
        scores = learner.scores(observation)
        if number in costed:
            within = int(np.searchsorted(workload.arrival_s, request[0] + arguments.horizon_s)) - number
            costs = np.zeros(len(choices), np.float64)
            feasible = choices.feasible_rows()
            for row in feasible:
                costs[row] = rollout_cost(
                    cluster,
                    choices.placement(row),
                    number,
                    requests,
                    base,
                    horizon_requests=min(max(within, arguments.fewest), arguments.most),
                    objective=arguments.objective,
                )
            costs[feasible] -= costs[feasible].min()
            rows.append({**observation, "scores": scores, "costs": costs.astype(np.float32)})
        cluster.submit(request_of(number, request), choices.placement(int(scores.argmax())))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
