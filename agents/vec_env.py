"""The batched environment as stable-baselines3 takes it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from envs.observation import Observation, encode, encode_batch
from envs.placement_env import PrefillPlacementEnv

SeedOf = Callable[[int, int], int]
"""The seed of an episode: from the index of its environment and its number there (0, 1, ...)."""


class PlacementVecEnv(VecEnv):
    """K placement environments that step together in this process.

    An environment whose episode has ended begins the next one at once. Its last observation, the summary of the episode
    and its total reward are then in `infos`, as stable-baselines3 has them: "terminal_observation",
    "TimeLimit.truncated", "episode" ("r" and "l"), "episode_summary". The other infos are empty: `dt_s` has what an
    environment's info would.

    Attributes:
        envs: the environments.
        dt_s: (K,) float32; simulated time of each environment's last step, seconds.
        episodes: episodes begun in each environment, those before `first_episodes` included.

    Args:
        envs: the environments; they share their spaces, and may differ in all else.
        seed_of: seeds each episode; None: an environment draws its episodes one after the other, from what `seed` set.
        first_episodes: number of the first episode in each environment; None: 0.
        reward_scales: what each environment's rewards are multiplied by; None: 1.

    Raises:
        ValueError: the environments' spaces differ.
    """

    def __init__(
        self,
        envs: Sequence[PrefillPlacementEnv],
        seed_of: SeedOf | None = None,
        first_episodes: Sequence[int] | None = None,
        reward_scales: Sequence[float] | None = None,
    ) -> None:
        first = envs[0]
        if any(env.observation_space != first.observation_space for env in envs):
            raise ValueError("environments of one vector need as many rows as the largest of them; see `rows`")
        self.envs = list(envs)
        self.episodes = list(first_episodes or [0] * len(envs))
        self.dt_s = np.zeros(len(envs), dtype=np.float32)
        self._seed_of = seed_of
        self._scales = list(reward_scales or [1.0] * len(envs))
        self._totals = [0.0] * len(envs)
        self._lengths = [0] * len(envs)
        self._rows: list[int] = []
        super().__init__(len(envs), first.observation_space, first.action_space)

    def _start(self, index: int) -> None:
        seed = self._seeds[index] if self._seed_of is None else self._seed_of(index, self.episodes[index])
        self._seeds[index] = None
        self.envs[index].start(seed, self._options[index] or None)
        self.episodes[index] += 1
        self._totals[index] = 0.0
        self._lengths[index] = 0

    def _observe(self) -> Observation:
        return encode_batch([env.choices for env in self.envs], self.envs[0].rows)

    # ---- what stable-baselines3 asks of a VecEnv ------------------------------------------------------------------

    def reset(self) -> Observation:
        """Start the next episode in every environment; observations with a leading axis of K."""
        for index in range(self.num_envs):
            self._start(index)
        self._reset_options()
        return self._observe()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take the rows that `step_wait` chooses."""
        self._rows = actions.tolist()

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment.

        Returns:
            Observations with a leading axis of K, fresh arrays; rewards (K,) float32; dones (K,); infos, see the class.
        """
        rewards = np.empty(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=np.bool_)
        dt_s = np.empty(self.num_envs, dtype=np.float32)
        infos: list[dict[str, Any]] = [{} for _ in self.envs]
        for index, (env, row) in enumerate(zip(self.envs, self._rows, strict=True)):
            env.act(row)
            process = env.process
            rewards[index] = reward = process.reward * self._scales[index]
            dt_s[index] = process.dt_s
            self._totals[index] += reward
            self._lengths[index] += 1
            if process.truncated:
                dones[index] = True
                infos[index] = {
                    "terminal_observation": encode(env.choices, env.rows),
                    "TimeLimit.truncated": True,
                    "episode": {"r": self._totals[index], "l": self._lengths[index]},
                    "episode_summary": process.summary(),
                }
                self._start(index)
        self.dt_s = dt_s
        return self._observe(), rewards, dones, infos

    def close(self) -> None:
        """Nothing is left open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment."""
        return [getattr(self.envs[index], attr_name) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment."""
        for index in self._get_indices(indices):
            setattr(self.envs[index], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment, such as "action_masks"."""
        methods = [getattr(self.envs[index], method_name) for index in self._get_indices(indices)]
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped."""
        return [isinstance(self.envs[index], wrapper_class) for index in self._get_indices(indices)]

    def get_images(self) -> list[Any]:
        """A picture of each environment."""
        return [env.render() for env in self.envs]
