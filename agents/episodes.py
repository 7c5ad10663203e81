"""Training episodes, each with a separate seed and its total reward.

stable-baselines3 seeds only the first reset of an environment, so that later episodes depend on everything before them.
Here episode k of stream s of a training run always has the same requests, whatever is trained, and a resumed run
continues with the next episodes.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

FIRST_TRAINING_SEED = 2**31
"""Training seeds start here, so that no evaluation seed below it is used in training."""


def training_seed(run_seed: int, stream: int, episode: int) -> int:
    """Seed of a training episode, in [2^31, 2^32), which depends only on the arguments."""
    word = int(np.random.SeedSequence([run_seed, stream, episode]).generate_state(1)[0])
    return FIRST_TRAINING_SEED | word


@dataclass(frozen=True)
class TrainingSeeds:
    """The seeds of a training run's episodes; groups of consecutive environments share a stream.

    Attributes:
        run_seed: the training run's seed.
        rollouts_per_arrivals: number of environments that share a stream.
    """

    run_seed: int
    rollouts_per_arrivals: int

    def stream(self, index: int) -> int:
        """The stream of an environment."""
        return index // self.rollouts_per_arrivals

    def __call__(self, index: int, episode: int) -> int:
        """The seed of an environment's episode."""
        return training_seed(self.run_seed, self.stream(index), episode)


class TrainingEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seeds every reset from (run seed, stream, episode) and reports each episode's total reward.

    The last step of an episode has info["episode"] = {"r": sum of rewards, "l": decisions}, in the format of
    stable-baselines3.

    Args:
        env: the environment.
        run_seed: the training run's seed.
        stream: environments with the same stream get the same arrivals.
        episode: number of the first episode.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], run_seed: int, stream: int, episode: int = 0) -> None:
        super().__init__(env)
        self.run_seed = run_seed
        self.stream = stream
        self.episode = episode
        self._reward = 0.0
        self._decisions = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode with its training seed; `seed` is ignored."""
        del seed
        own_seed = training_seed(self.run_seed, self.stream, self.episode)
        self.episode += 1
        self._reward, self._decisions = 0.0, 0
        return self.env.reset(seed=own_seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and add up the rewards."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._reward += float(reward)
        self._decisions += 1
        if terminated or truncated:
            info["episode"] = {"r": self._reward, "l": self._decisions}
        return observation, float(reward), terminated, truncated, info
