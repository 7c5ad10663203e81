"""Examples for distillation: what the best rule of an episode would do in the states that the learner visits (DAgger).

Dataset aggregation (Ross, Gordon and Bagnell 2011, arXiv 1011.0686): a learner that only copies the teacher's own runs
never sees the states that its mistakes lead to. Here the cluster has already run when an episode begins, under a rule
drawn at random, and the learner places a share of the requests; every request is labelled with the teacher's choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.numpy_policy import NumpyActor
from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, ClusterConfig, Placement, Policy, request_of, simulate, view_of
from envs.observation import encode
from envs.warm_up import WarmUp, warm
from envs.workload import Workload

Examples = Mapping[str, np.ndarray]

ATTAINMENT_MARGIN = 0.005
"""A teacher's SLO attainment is within this of the best of an episode. Not from a paper."""

MISS_WEIGHT = 20.0
"""The weight of missed SLOs next to the logarithm of P95 TTFT: 0.2 for each point. Not from a paper."""


@dataclass(frozen=True)
class Played:
    """A rule's result on an episode: P95 of its TTFTs, seconds, and the share of requests that met both SLOs."""

    ttft_p95_s: float
    attainment: float


def play_workload(workload: Workload, policy: Policy, config: ClusterConfig) -> tuple[np.ndarray, float]:
    """The TTFT of each request, seconds, inf without a first token; and the share of requests that missed an SLO."""
    result = simulate(workload, policy, config)
    ttft_s = np.array([record.first_token_s for record in result.records]) - workload.arrival_s
    return np.where(np.isnan(ttft_s), np.inf, ttft_s), result.counters.misses / len(workload)


def play_rule(workload: Workload, rule: Policy, config: ClusterConfig) -> Played:
    """Play a whole workload under a rule."""
    ttft_s, missed = play_workload(workload, rule, config)
    return Played(float(np.quantile(ttft_s, 0.95)), 1.0 - missed)


def best_rule(played: Sequence[Played], margin: float = ATTAINMENT_MARGIN) -> int:
    """Index of the lowest P95 TTFT among the rules whose attainment is within a margin of the best."""
    enough = max(one.attainment for one in played) - margin
    usable = [index for index, one in enumerate(played) if one.attainment >= enough]
    return min(usable, key=lambda index: played[index].ttft_p95_s)


def label_episode(
    workload: Workload,
    config: ClusterConfig,
    teacher: Policy,
    choice_set: ChoiceSet,
    learner: NumpyActor | None,
    learner_share: float,
    warm_up: WarmUp,
    warm_up_requests: int,
    rng: np.random.Generator,
) -> Examples:
    """Play a workload and label every request after the warm-up with the teacher's choice.

    Args:
        workload: the requests.
        config: the cluster.
        teacher: labels each request.
        choice_set: the learner's choices.
        learner: places `learner_share` of the requests; None: the teacher places all.
        learner_share: see above.
        warm_up: places the first `warm_up_requests` requests.
        warm_up_requests: see above.
        rng: draws who places a request.

    Returns:
        Observations by name, each with a leading axis of examples, and "actions" (M,): the teacher's rows. Requests for
        which the teacher's placement is no feasible row (such as a split prompt) give no example.
    """
    requests = workload.rows()
    cluster = Cluster(config, lambda _: None)
    warm(cluster, requests, warm_up_requests, warm_up, choice_set, rng)
    view = cluster.view()
    rows: list[dict[str, np.ndarray]] = []
    actions: list[int] = []
    for number in range(warm_up_requests, len(requests)):
        request = requests[number]
        cluster.clock.advance_to(request[0])
        asked = view_of(number, request)
        wanted = teacher.place(asked, view) or view.default_placement()
        choices = Choices.of(asked, view, choice_set)
        observation = encode(choices)
        label = row_of(choices, wanted)
        if label >= 0:
            rows.append(observation)
            actions.append(label)
        placement = wanted
        if learner is not None and rng.random() < learner_share:
            placement = choices.placement(learner.act(observation))
        cluster.submit(request_of(number, request), placement)
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**found, "actions": np.array(actions, np.int64)}


def row_of(choices: Choices, placement: Placement) -> int:
    """The feasible row with a placement's nodes; -1 if there is none, or if the placement splits the prompt."""
    if placement.split_tokens:
        return -1
    for row in choices.feasible_rows():
        if choices.placement(row)[:2] == placement[:2]:
            return row
    return -1
