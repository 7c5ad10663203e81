"""The vectorised environment for stable-baselines3."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from agents.batch_process import BatchProcess
from envs.batch import EnvBatch, SeedOf
from envs.observation import Observation
from envs.placement_env import PrefillPlacementEnv


class PlacementVecEnv(VecEnv):
    """K placement environments that step together, in this process or split over several.

    An environment whose episode has ended starts the next one at once. Its entry in `infos` then has the last
    observation, the total reward and the summary of the episode under stable-baselines3's names "terminal_observation",
    "TimeLimit.truncated" and "episode" ("r" and "l"), and "episode_summary". The other infos are empty; `dt_s` replaces
    an environment's info. Episodes do not depend on `processes`.

    Attributes:
        dt_s: (K,) float32; simulated time of each environment's last step, seconds.

    Args:
        envs: the environments before their first reset; their spaces must be equal, but they may differ otherwise.
        seed_of: seeds each episode; None: each environment draws its episodes from the generator that `seed` sets. It
            must be picklable if there are several processes.
        first_episodes: number of the first episode in each environment; None: 0.
        reward_scales: factor of each environment's rewards; None: 1.
        processes: number of processes, including this one; two are faster than one on two cores.

    Raises:
        ValueError: the environments' spaces differ.
    """

    def __init__(
        self,
        envs: Sequence[PrefillPlacementEnv],
        seed_of: SeedOf | None = None,
        first_episodes: Sequence[int] | None = None,
        reward_scales: Sequence[float] | None = None,
        processes: int = 1,
    ) -> None:
        first = envs[0]
        if any(env.observation_space != first.observation_space for env in envs):
            raise ValueError("the environments' spaces differ; give all of them the largest number of `rows`")
        self.render_mode = first.render_mode
        episodes = list(first_episodes or [0] * len(envs))
        scales = list(reward_scales or [1.0] * len(envs))
        size = -(-len(envs) // min(processes, len(envs)))
        self._slices = [slice(start, start + size) for start in range(0, len(envs), size)]
        batches = [EnvBatch(envs[part], seed_of, episodes[part], scales[part], part.start) for part in self._slices]
        self._here = batches[0]
        self._elsewhere = [BatchProcess(batch, first.observation_space) for batch in batches[1:]]
        self._rows: list[int] = []
        self.dt_s = np.zeros(len(envs), dtype=np.float32)
        super().__init__(len(envs), first.observation_space, first.action_space)

    @property
    def episodes(self) -> list[int]:
        """Number of each environment's next episode."""
        return [*self._here.episodes, *[number for other in self._elsewhere for number in other.episodes()]]

    # ---- stable-baselines3's VecEnv ------------------------------------------------------------------

    def reset(self) -> Observation:
        """Start the next episode in every environment; the observations have a leading axis of K."""
        options = [one or None for one in self._options]
        seeds = self._seeds
        first, *others = self._slices
        parts = [self._here.reset(seeds[first], options[first])]
        parts += [one.reset(seeds[part], options[part]) for one, part in zip(self._elsewhere, others, strict=True)]
        self._reset_seeds()
        self._reset_options()
        return _joined(parts)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Start a step in the other processes; `step_wait` does this process's part."""
        rows = actions.tolist()
        for batch, part in zip(self._elsewhere, self._slices[1:], strict=True):
            batch.step_async(rows[part])
        self._rows = rows[self._slices[0]]

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment.

        Returns:
            Observations with a leading axis of K, fresh arrays; rewards (K,) float32; dones (K,); infos, see the class.
        """
        try:
            stepped = [self._here.step(self._rows)]
        finally:  # no answer must be left for a later request
            elsewhere = [batch.step_wait() for batch in self._elsewhere]
        stepped += elsewhere
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for part, of_part in zip(self._slices, stepped, strict=True):
            for index, final in of_part.finals.items():
                infos[part.start + index] = final
        self.dt_s = np.concatenate([one.dt_s for one in stepped])
        rewards = np.concatenate([one.rewards for one in stepped])
        dones = np.concatenate([one.dones for one in stepped])
        return _joined([one.observation for one in stepped]), rewards, dones, infos

    def close(self) -> None:
        """End the other processes."""
        for batch in self._elsewhere:
            batch.close()
        self._elsewhere = []

    def _of_each(self, function: Any, indices: VecEnvIndices, *arguments: Any) -> list[Any]:
        """Call a function with each of the environments `indices`, in whatever process they are."""
        found: dict[int, Any] = {}
        wanted = list(self._get_indices(indices))
        for number, part in enumerate(self._slices):
            inside = [index for index in wanted if part.start <= index < part.stop]
            if not inside:
                continue
            if number == 0:
                values = [function(self._here.envs[index], *arguments) for index in inside]
            else:
                local = [index - part.start for index in inside]
                values = self._elsewhere[number - 1].of_each(function, local, *arguments)
            found |= dict(zip(inside, values, strict=True))
        return [found[index] for index in wanted]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment."""
        return self._of_each(getattr, indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment."""
        self._of_each(setattr, indices, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment, such as "action_masks"."""
        return self._of_each(partial(_call, method_name, method_kwargs), indices, *method_args)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped."""
        return self._of_each(isinstance, indices, wrapper_class)

    def get_images(self) -> list[Any]:
        """An image of each environment."""
        return self.env_method("render")


def _call(name: str, keywords: dict[str, Any], env: PrefillPlacementEnv, *arguments: Any) -> Any:
    return getattr(env, name)(*arguments, **keywords)


def _joined(parts: Sequence[Observation]) -> Observation:
    """Concatenate the observations of all parts; those of a single part are new arrays already."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
