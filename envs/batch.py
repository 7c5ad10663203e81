"""Environments that step together in one process, each beginning its next episode as soon as one has ended."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.observation import Observation, encode, encode_batch
from envs.placement_env import PrefillPlacementEnv

SeedOf = Callable[[int, int], int]
"""The seed of an episode: from the index of its environment and its number there (0, 1, ...)."""


class Stepped(NamedTuple):
    """What a step of K environments has come to.

    Attributes:
        observation: each part with a leading axis of K; where an episode has ended, the next one's first.
        rewards: (K,) float32.
        dones: (K,) bool; whether an episode has ended.
        dt_s: (K,) float32; simulated time of the step, seconds.
        finals: by the index of each environment whose episode has ended: "terminal_observation", "TimeLimit.truncated",
            "episode" (its total reward "r" and decisions "l") and "episode_summary", as stable-baselines3's infos.
    """

    observation: Observation
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    dt_s: NDArray[np.float32]
    finals: dict[int, dict[str, Any]]


class EnvBatch:
    """K environments.

    Attributes:
        envs: the environments.
        episodes: number of episodes begun in each, counted from the first ones given.

    Args:
        envs: the environments; they share their spaces.
        seed_of: seeds each episode; None: an environment draws its episodes one after the other.
        first_episodes: number of the first episode in each environment.
        reward_scales: what each environment's rewards are multiplied by.
        first_index: index of the first environment among those of all batches.
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
            seeds: of the environments, where no `seed_of` is given; None goes on with what was set before.
            options: of the environments' `reset`.
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
