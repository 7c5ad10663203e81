"""Environments that step together in one process; each begins its next episode as soon as one has ended."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.observation import Observation, encode, encode_batch
from envs.placement_env import PrefillPlacementEnv

SeedOf = Callable[[int, int], int]
"""Maps the index of an environment and the number of an episode in it (0, 1, ...) to the episode's seed."""


class Stepped(NamedTuple):
    """The result of a step of K environments.

    Attributes:
        observation: each part has a leading axis of K. If an episode has ended, it is the next episode's first
            observation.
        rewards: (K,) float32.
        dones: (K,) bool; whether an episode has ended.
        dt_s: (K,) float32; simulated time of the step, seconds.
        finals: for each environment whose episode has ended, by index: "terminal_observation", "TimeLimit.truncated",
            "episode" (total reward "r" and number of decisions "l") and "episode_summary", as in stable-baselines3's
            infos.
    """

    observation: Observation
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    dt_s: NDArray[np.float32]
    finals: dict[int, dict[str, Any]]


class EnvBatch:
    """K environments that step together.

    Attributes:
        envs: the environments.
        episodes: for each environment, the number of its next episode.

    Args:
        envs: the environments; their spaces are equal.
        seed_of: seeds each episode; None: each environment draws its episodes from one generator.
        first_episodes: number of the first episode in each environment.
        reward_scales: factor of each environment's rewards.
        first_index: index of the first environment among the environments of all batches.
    """

    def __init__(
        self,
        envs: Sequence[PrefillPlacementEnv],
        seed_of: SeedOf | None,
        first_episodes: Sequence[int],
        reward_scales: Sequence[float],
        first_index: int = 0,
    ) -> None:
        self.envs = list(envs)
        self._processes = [env.process for env in envs]
        self.episodes = list(first_episodes)
        self._seed_of = seed_of
        self._scales = list(reward_scales)
        self._first_index = first_index
        self._totals = [0.0] * len(envs)
        self._lengths = [0] * len(envs)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]) -> Observation:
        """Start the next episode in every environment.

        Args:
            seeds: seeds of the environments, if there is no `seed_of`; None continues an environment's random stream.
            options: the `options` of each environment's `reset`.
        """
        for index, (seed, option) in enumerate(zip(seeds, options, strict=True)):
            self._start(index, seed, option)
        return self._observe()

    def step(self, rows: Sequence[int]) -> Stepped:
        """Choose a row in every environment.

        Raises:
            ValueError: see `DecisionProcess.act`.
        """
        rewards: list[float] = []
        dones: list[bool] = []
        dt_s: list[float] = []
        finals: dict[int, dict[str, Any]] = {}
        for index, (process, row) in enumerate(zip(self._processes, rows, strict=True)):
            process.act(row)
            reward = process.reward * self._scales[index]
            self._totals[index] += reward
            self._lengths[index] += 1
            rewards.append(reward)
            dones.append(process.truncated)
            dt_s.append(process.dt_s)
            if process.truncated:
                finals[index] = {
                    "terminal_observation": encode(process.choices, process.rows),
                    "TimeLimit.truncated": True,
                    "episode": {"r": self._totals[index], "l": self._lengths[index]},
                    "episode_summary": process.summary(),
                }
                self._start(index)
        return Stepped(
            self._observe(),
            np.array(rewards, dtype=np.float32),
            np.array(dones),
            np.array(dt_s, dtype=np.float32),
            finals,
        )

    def _start(self, index: int, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        if self._seed_of is not None:
            seed = self._seed_of(self._first_index + index, self.episodes[index])
        self.envs[index].start(seed, options)
        self.episodes[index] += 1
        self._totals[index] = 0.0
        self._lengths[index] = 0

    def _observe(self) -> Observation:
        return encode_batch([process.choices for process in self._processes], self.envs[0].rows)
