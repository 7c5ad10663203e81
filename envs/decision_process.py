"""The placement of requests as a semi-Markov decision process: the environment without its arrays.

The time between two decisions is the time between two arrivals. `envs.placement_env` and `envs.vector_env` wrap the
process for Gymnasium, `agents.vec_env` for stable-baselines3.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from envs.choices import Choices, ChoiceSet
from envs.cluster import Cluster, ClusterConfig, Placement, RequestRecord, request_of, view_of
from envs.episode import Episode
from envs.episode_summary import episode_summary
from envs.objective import Costs, Objective
from envs.warm_up import WarmUp, warm

NO_COSTS = Costs(0.0, 0.0, 0.0, 0.0)


class Source(Protocol):
    """A source of episodes, such as `envs.episode.EpisodeSource`."""

    def draw(self, rng: np.random.Generator) -> Episode:
        """Draw the next episode."""


class DecisionProcess:
    """Plays episodes: at each arrival the caller chooses a row of `choices`, and time advances to the next arrival.

    Attributes:
        config: configuration of the cluster.
        source: draws the episodes.
        objective: the cost of decisions.
        strict: a masked row raises ValueError instead of being replaced.
        cluster: the episode's cluster.
        episode: the episode's requests.
        records: records of the requests that were placed here and have finished or were rejected, in order of these
            events.
        rows: number of rows; rows beyond the current choices are masked.
        placement: placement of the last decision.
        reward: reward of the last decision.
        accrued: the parts of its cost.
        dt_s: time since the last decision, seconds.
        invalid_action: whether the last decision chose a masked row.
        truncated: the episode has ended; the current request must not be placed.

    A process is pickled as the state of the generator before the last reset and the rows chosen since; unpickling
    replays them.

    Args:
        config: configuration of the cluster.
        source: draws the episodes.
        objective: the cost of decisions.
        choice_set: the set of choices.
        rows: see above; at least the largest number of choices.
        warm_ups: policies that place requests before an episode begins; each episode draws one.
        strict: see above.
    """

    __slots__ = (
        "_actions",
        "_choice_set",
        "_choices",
        "_costs",
        "_drawn_by",
        "_next",
        "_warm_ups",
        "accrued",
        "cluster",
        "config",
        "dt_s",
        "episode",
        "invalid_action",
        "objective",
        "placement",
        "records",
        "reward",
        "rows",
        "source",
        "strict",
        "truncated",
    )

    def __init__(
        self,
        config: ClusterConfig,
        source: Source,
        objective: Objective,
        choice_set: ChoiceSet,
        rows: int,
        warm_ups: list[WarmUp],
        strict: bool,
    ) -> None:
        self.config = config
        self.source = source
        self.objective = objective
        self.rows = rows
        self.strict = strict
        self._choice_set: ChoiceSet = choice_set
        self._warm_ups = warm_ups
        self.records: list[RequestRecord] = []
        self.episode = Episode([], 0, 0)
        self.cluster = Cluster(config, self._keep_record)
        self._choices: Choices | None = None
        self.placement: Placement | None = None
        self._next = 0
        self._drawn_by: tuple[type[np.random.BitGenerator], Mapping[str, Any]] | None = None
        self._actions: list[int] = []
        self._costs = self.accrued = NO_COSTS
        self.reward = self.dt_s = 0.0
        self.invalid_action = self.truncated = False

    def _keep_record(self, record: RequestRecord) -> None:
        if record.request >= self.episode.first:
            self.records.append(record)

    @property
    def choices(self) -> Choices:
        """The choices for the current request.

        Raises:
            ValueError: there was no reset yet.
        """
        if self._choices is None:
            raise ValueError("the environment has not been reset")
        return self._choices

    def reset(self, rng: np.random.Generator) -> None:
        """Draw an episode and advance to its first decision."""
        self._drawn_by = type(rng.bit_generator), rng.bit_generator.state
        self._actions = []
        self.episode = episode = self.source.draw(rng)
        self.records = []
        if episode.first:
            policy = self._warm_ups[int(rng.integers(len(self._warm_ups)))]
            running = Cluster(self.config, lambda _: None)
            warm(running, episode.requests, episode.first, policy, self._choice_set, rng)
            self.cluster = running.copy(self._keep_record)
        else:
            self.cluster = Cluster(self.config, self._keep_record)
        self._next = episode.first
        self._costs = self.objective.costs(self.cluster)
        self.accrued = NO_COSTS
        self.reward = self.dt_s = 0.0
        self.invalid_action = self.truncated = False
        self._list_choices()

    def act(self, row: int) -> None:
        """Place the current request according to a row, and advance to the next arrival.

        Raises:
            ValueError: there is no such row, the row is masked and `strict` is set, or there was no reset yet.
        """
        choices = self.choices
        if not 0 <= row < self.rows:
            raise ValueError(f"action {row} is not a row from 0 to {self.rows - 1}")
        self.invalid_action = invalid = row >= len(choices) or not choices.feasible[row]
        if invalid and self.strict:
            raise ValueError(f"action {row} is masked; see action_mask")
        self.placement = placement = choices.view.default_placement() if invalid else choices.placement(row)
        cluster = self.cluster
        requests = self.episode.requests
        number = self._next
        cluster.submit(request_of(number, requests[number]), placement)
        self._actions.append(row)
        self._next = number + 1
        now_s = requests[number + 1][0]
        cluster.clock.advance_to(now_s)
        self.dt_s = now_s - requests[number][0]
        costs = self.objective.costs(cluster)
        self.accrued = costs.since(self._costs)
        self._costs = costs
        self.reward = -self.objective.total(self.accrued)
        self.truncated = number + 1 == self.episode.last
        self._list_choices()

    def __reduce__(self) -> tuple[Any, ...]:
        made_from = (self.config, self.source, self.objective, self._choice_set, self.rows, self._warm_ups, self.strict)
        return _played_again, (made_from, self._drawn_by, self._actions)

    def _list_choices(self) -> None:
        request = view_of(self._next, self.episode.requests[self._next])
        self._choices = Choices.of(request, self.cluster.view(), self._choice_set)

    def summary(self) -> dict[str, Any]:
        """Summary of the episode so far; see `envs.episode_summary`."""
        episode = self.episode
        return episode_summary(self.records, episode.requests, self._next - episode.first)

    def info(self) -> dict[str, Any]:
        """Gymnasium's info after the last decision; it contains the summary if the episode has ended."""
        accrued = self.accrued
        info: dict[str, Any] = {
            "dt_s": self.dt_s,
            "waiting_cost": accrued.waiting,
            "tail_cost": accrued.tail,
            "tbt_cost": accrued.tbt,
            "miss_cost": accrued.misses,
            "invalid_action": self.invalid_action,
        }
        if self.truncated:
            info["episode_summary"] = self.summary()
        return info


def _played_again(
    made_from: tuple[Any, ...],
    drawn_by: tuple[type[np.random.BitGenerator], Mapping[str, Any]] | None,
    actions: list[int],
) -> DecisionProcess:
    """Restore a pickled process by replaying its actions."""
    process = DecisionProcess(*made_from)
    if drawn_by is not None:
        kind, state = drawn_by
        bits = kind()
        bits.state = state
        process.reset(np.random.Generator(bits))
        for row in actions:
            process.act(row)
    return process
