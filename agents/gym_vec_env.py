"""The environments of a training run, and an adapter for ordinary Gymnasium environments."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.episodes import TrainingEpisodes, TrainingSeeds

MakeEnv = Callable[[int], gymnasium.Env[Any, Any]]
"""Makes the environment of one stream of episodes (0, 1, ...); streams may differ in load or workload."""

MakeVecEnv = Callable[[Sequence[int]], VecEnv]
"""Makes the environments of a training run, one per given number, which is the number of its first episode.

The environments have two attributes in addition to stable-baselines3's: `episodes`, a list of the number of each one's
next episode, and `dt_s` (n_envs,), the simulated seconds of each one's last step; info["dt_s"] may replace the latter.
"""


class SteppedInTurn(DummyVecEnv):
    """Ordinary environments, stepped one after another, for a training run.

    Args:
        make_env: makes the environment of a stream; its infos must contain "dt_s".
        seeds: seeds of the training run.
        first_episodes: number of the first episode of each environment.
    """

    def __init__(self, make_env: MakeEnv, seeds: TrainingSeeds, first_episodes: Sequence[int]) -> None:
        def environment(index: int) -> TrainingEpisodes:
            stream = seeds.stream(index)
            return TrainingEpisodes(make_env(stream), seeds.run_seed, stream, first_episodes[index])

        super().__init__([lambda index=index: environment(index) for index in range(len(first_episodes))])

    @property
    def episodes(self) -> list[int]:
        """Number of each environment's next episode."""
        return [int(number) for number in self.get_attr("episode")]
