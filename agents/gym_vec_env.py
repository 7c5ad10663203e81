"""The environments of a training run, and ordinary Gymnasium environments as such."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.episodes import TrainingEpisodes, TrainingSeeds

MakeEnv = Callable[[int], gymnasium.Env[Any, Any]]
"""Makes the environment of one stream of episodes (0, 1, ...); streams may differ in load or workload."""

MakeVecEnv = Callable[[Sequence[int]], VecEnv]
"""Makes the environments of a training run, as many as numbers are given; each starts with the episode of its number.

The environments have two attributes beyond stable-baselines3's: `episodes`, a list of how many episodes each has begun
(the number of its next one), and `dt_s` (n_envs,), the seconds that each one's last step took; the latter may be given
as info["dt_s"] instead.
"""


class SteppedInTurn(DummyVecEnv):
    """Ordinary environments, stepped one after another, as the environments of a training run.

    Args:
        make_env: makes the environment of a stream; its steps must give info["dt_s"].
        seeds: of the training run.
        first_episodes: number of the first episode of each environment.
    """

    def __init__(self, make_env: MakeEnv, seeds: TrainingSeeds, first_episodes: Sequence[int]) -> None:
        def environment(index: int) -> TrainingEpisodes:
            stream = seeds.stream(index)
            return TrainingEpisodes(make_env(stream), seeds.run_seed, stream, first_episodes[index])

        super().__init__([lambda index=index: environment(index) for index in range(len(first_episodes))])

    @property
    def episodes(self) -> list[int]:
        """How many episodes each environment has begun."""
        return [int(number) for number in self.get_attr("episode")]
