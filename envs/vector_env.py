"""The Gymnasium vector environment: K clusters in one process, whose observations are encoded together."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.observation import Observation, encode, encode_batch
from envs.placement_env import PrefillPlacementEnv

BoolArray = NDArray[np.bool_]
Infos = dict[str, Any]


class PlacementVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """K environments `envs:PrefillPlacement-v1` that step together; create it with `gymnasium.make_vec`.

    Each environment behaves exactly as it would alone. They share the cost of encoding observations: the values of all
    observations are squashed and copied into place in one pass per step.

    Attributes:
        envs: the environments.

    Args:
        num_envs: K.
        autoreset_mode: when the next episode starts, as in `gymnasium.vector.SyncVectorEnv`. "NextStep": the step after
            the last one ignores its action and returns the first observation of the next episode. "SameStep": the last
            step returns that observation, and the last observation and info of the old episode are in
            `infos["final_obs"]` and `infos["final_info"]`. "Disabled": call `reset(options={"reset_mask": mask})`.
        kwargs: arguments of PrefillPlacementEnv.

    Raises:
        InputError: an argument of PrefillPlacementEnv is out of range.
    """

    def __init__(
        self, num_envs: int = 1, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, **kwargs: Any
    ) -> None:
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.envs = [PrefillPlacementEnv(**kwargs) for _ in range(num_envs)]
        self._processes = [env.process for env in self.envs]
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self._ended = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Start an episode in each environment, or in those of `options["reset_mask"]`, a boolean array of shape (K,).

        Args:
            seed: seed of the first environment, increased by one for each further environment; or a list of seeds.
            options: see above.

        Raises:
            ValueError: the number of seeds is not K, or the mask has the wrong shape or type or is all False.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        if getattr(mask, "shape", None) != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(f"reset_mask must be a boolean array of shape ({self.num_envs},) with at least one True")
        infos: Infos = {}
        for i in np.flatnonzero(mask).tolist():
            self.envs[i].start(seeds[i], options)
            infos = self._add_info(infos, self.envs[i].process.info(), i)
        self._ended[mask] = False
        return self._observe(), infos

    def step(self, actions: NDArray[np.int64]) -> tuple[Observation, NDArray[np.float64], BoolArray, BoolArray, Infos]:
        """Place the current request in every environment; the class describes steps after the end of an episode.

        Returns:
            Observations, each with a leading axis of K; rewards (K,); terminations (K,), all False; truncations (K,);
            infos in the format of Gymnasium's vector environments: an array (K,) for each key of an environment's info,
            and under the key with a leading underscore a mask of the environments that have it.

        Raises:
            ValueError: an action is not a row, or in mode "Disabled" an episode has ended.
        """
        rewards = [0.0] * self.num_envs
        truncations = [False] * self.num_envs
        finals: dict[int, tuple[Observation, dict[str, Any]]] = {}
        ended = self._ended.tolist()
        for i, (env, action) in enumerate(zip(self.envs, np.asarray(actions).tolist(), strict=True)):
            if ended[i]:
                if self.autoreset_mode is AutoresetMode.DISABLED:
                    raise ValueError(f"the episode of environment {i} has ended; reset it first")
                env.start()
                continue
            process = self._processes[i]
            process.act(action)
            rewards[i] = process.reward
            if process.truncated:
                truncations[i] = True
                if self.autoreset_mode is AutoresetMode.SAME_STEP:
                    finals[i] = encode(process.choices, process.rows), process.info()
                    env.start()
        infos = self._infos()
        for i, (observation, info) in finals.items():
            infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
        truncated = np.array(truncations)
        self._ended = truncated & (self.autoreset_mode is not AutoresetMode.SAME_STEP)
        return self._observe(), np.array(rewards), np.zeros(self.num_envs, dtype=np.bool_), truncated, infos

    def action_masks(self) -> BoolArray:
        """Which rows may be chosen now, shape (K, C)."""
        return np.array([env.action_masks() for env in self.envs])

    def render(self) -> tuple[Any, ...] | None:
        """The rendering of each environment."""
        return tuple([env.render() for env in self.envs]) if self.render_mode is not None else None

    def _observe(self) -> Observation:
        return encode_batch([process.choices for process in self._processes], self.envs[0].rows)

    def _infos(self) -> Infos:
        """The infos of all environments, which have the same keys except for summaries of ended episodes."""
        processes = self._processes
        accrued = [process.accrued for process in processes]
        infos: Infos = {
            "dt_s": np.array([process.dt_s for process in processes]),
            "waiting_cost": np.array([costs.waiting for costs in accrued]),
            "tail_cost": np.array([costs.tail for costs in accrued]),
            "tbt_cost": np.array([costs.tbt for costs in accrued]),
            "miss_cost": np.array([costs.misses for costs in accrued]),
            "invalid_action": np.array([process.invalid_action for process in processes]),
        }
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos |= {f"_{key}": everywhere for key in infos}
        for i, process in enumerate(processes):
            if process.truncated:
                infos = self._add_info(infos, {"episode_summary": process.summary()}, i)
        return infos
