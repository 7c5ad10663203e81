"""Discounting by time rather than by step, for decisions that are unevenly spaced.

A reward is the cost of the time between two decisions, so the discount between them is exp(-beta * dt): a
semi-Markov decision process (Bradtke and Duff 1994). dt is the time from a decision to the next, in seconds.

stable-baselines3 has one discount for all steps, gamma, and hands neither the time nor the environment's infos to its
rollout buffer. So two parts share what they know about the step just made, a `LastStep`: `TimedRewards`, around the
environments, writes it; `TimeDiscountedBuffer` reads it and discounts. PPO is given gamma = 1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from torch import Tensor

ADVANTAGE_LIMIT = 3.0
"""Advantages are limited to this many standard deviations."""

FloatArray = NDArray[np.float32]


class LastStep:
    """The step that all environments made last: how long it took, and its rewards as learning is to see them."""

    def __init__(self) -> None:
        self._step: tuple[FloatArray, FloatArray] | None = None

    def put(self, dt_s: FloatArray, rewards: FloatArray) -> None:
        """Keep a step of the environments: seconds (n_envs,) and scaled rewards (n_envs,)."""
        self._step = dt_s, rewards

    def take(self) -> tuple[FloatArray, FloatArray]:
        """Return the step and forget it, so that none is used twice.

        Raises:
            RuntimeError: there is none; the environments are not those of a TimedRewards that shares this.
        """
        if self._step is None:
            raise RuntimeError("no step was timed: wrap the environments in TimedRewards(env, scale, buffer.last_step)")
        step, self._step = self._step, None
        return step


class TimedRewards(VecEnvWrapper):
    """Scales rewards, passes on how long each step took, and sums the rewards as the environments gave them.

    Args:
        venv: environments whose steps last `venv.dt_s` (n_envs,) seconds each or, where they have no such attribute,
            info["dt_s"].
        reward_scale: rewards are multiplied by this before the learner sees them.
        last_step: shared with the learner's TimeDiscountedBuffer. A model that was loaded from a file has one there:
            `model.set_env(TimedRewards(env, scale, model.rollout_buffer.last_step))`.
    """

    def __init__(self, venv: VecEnv, reward_scale: float, last_step: LastStep) -> None:
        super().__init__(venv)
        self.reward_scale = reward_scale
        self.last_step = last_step
        self._reward_total = 0.0
        self._times_itself = hasattr(venv, "dt_s")

    def reset(self) -> Any:
        """Reset all environments."""
        return self.venv.reset()

    def step_wait(self) -> tuple[Any, FloatArray, NDArray[np.bool_], list[dict[str, Any]]]:
        """Step, with scaled rewards."""
        observations, rewards, dones, infos = self.venv.step_wait()
        dt_s = self.venv.dt_s if self._times_itself else [info["dt_s"] for info in infos]
        self._reward_total += float(rewards.sum(dtype=np.float64))
        scaled = np.asarray(rewards, dtype=np.float32) * np.float32(self.reward_scale)
        self.last_step.put(np.array(dt_s, dtype=np.float32), scaled)
        # The learner adds values of last observations to what it is given, so it is given a copy.
        return observations, scaled.copy(), dones, infos

    def take_reward_total(self) -> float:
        """The sum of all rewards since the last call, as the environments gave them."""
        total, self._reward_total = self._reward_total, 0.0
        return total


class TimeDiscountedBuffer(DictRolloutBuffer):
    """Rollout buffer whose advantages use a separate discount for each step.

    Costs differ tenfold between light load and overload and have a heavy tail, so that raw advantages would
    be those of the worst minute seen. Two measures, neither of which touches the returns that the critic
    learns:

    - Environments in a row that play the same arrivals form a group, and the mean advantage over a group at a step is
      taken off: what the arrivals did to all of them alike (a burst ahead) says nothing about an action. This is an
      input-dependent baseline, arXiv 1807.02264; up to a constant factor it adds no bias.
    - A group's advantages are divided by their standard deviation over the rollout and limited to ADVANTAGE_LIMIT of
      them, so that every load counts alike. This changes what is optimized: from the mean cost over loads towards the
      mean relative cost. PPO must leave them as they are (`normalize_advantage=False`): it would scale a batch by the
      spread of whatever loads are in it.

    A step is copied once, into arrays that last as long as the buffer, and once more into each batch that it is in.

    Args:
        args: DictRolloutBuffer's own.
        last_step: written by the TimedRewards around the environments.
        rollouts_per_arrivals: environments in a group; 1 for no baseline.
        rate_per_s: beta; a step of dt seconds is discounted by exp(-beta * dt).
        gae_time_s: a step's lambda is exp(-dt / gae_time_s) if that is above `gae_lambda`: where decisions are dense,
            what an action does shows only after many of them. 0: `gae_lambda` for all steps.
        kwargs: DictRolloutBuffer's own; `gamma` is not used.
    """

    advantages: np.ndarray
    returns: np.ndarray
    dt_s: np.ndarray

    def __init__(
        self,
        *args: Any,
        last_step: LastStep,
        rollouts_per_arrivals: int = 1,
        rate_per_s: float = 0.0,
        gae_time_s: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.last_step = last_step
        self.rate_per_s = rate_per_s
        self.gae_time_s = gae_time_s
        super().__init__(*args, **kwargs)
        if self.n_envs % rollouts_per_arrivals:
            raise ValueError(f"{self.n_envs} environments cannot be split into groups of {rollouts_per_arrivals}")
        self.rollouts_per_arrivals = rollouts_per_arrivals

    def reset(self) -> None:
        """Forget the rollout."""
        if not hasattr(self, "observations"):
            super().reset()  # makes the arrays, which then serve every rollout
        self.pos, self.full, self.generator_ready = 0, False, False
        # nan until written, so that a step that was never recorded cannot pass unnoticed.
        self.dt_s = np.full((self.buffer_size, self.n_envs), np.nan, dtype=np.float32)

    def add(
        self,
        obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Keep a step of all environments.

        Args:
            obs: observations it was decided on.
            action: (n_envs, 1).
            reward: (n_envs,), with the value of the last observation added where an episode was cut off.
            episode_start: whether it was an episode's first.
            value: (n_envs, 1), of the observations.
            log_prob: (n_envs,), of the actions.
        """
        at = self.pos
        dt_s, rewards = self.last_step.take()
        self.dt_s[at] = dt_s
        # stable-baselines3 has added the value of what follows undiscounted: gamma is 1.
        self.rewards[at] = rewards + np.exp(-self.rate_per_s * dt_s) * (reward - rewards)
        for name, kept in self.observations.items():
            kept[at] = obs[name]
        self.actions[at] = action.reshape(self.n_envs, self.action_dim)
        self.episode_starts[at] = episode_start
        self.values[at] = value.numpy(force=True).reshape(-1)
        self.log_probs[at] = log_prob.numpy(force=True)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """GAE(lambda), arXiv 1506.02438, with a discount and a lambda per step.

        Args:
            last_values: values of the states after the last step, (n_envs, 1).
            dones: whether the last step ended an episode, (n_envs,).
        """
        discounts = np.exp(-self.rate_per_s * self.dt_s)
        lambdas = np.full_like(self.dt_s, self.gae_lambda)
        if self.gae_time_s > 0.0:
            lambdas = np.maximum(lambdas, np.exp(-self.dt_s / self.gae_time_s))
        next_values = last_values.numpy(force=True).reshape(-1)
        goes_on = 1.0 - dones.astype(np.float32)
        advantage = np.zeros(self.n_envs, dtype=np.float32)
        for step in reversed(range(self.buffer_size)):
            discount = discounts[step] * goes_on
            error = self.rewards[step] + discount * next_values - self.values[step]
            advantage = error + discount * lambdas[step] * advantage
            self.advantages[step] = advantage
            next_values = self.values[step]
            goes_on = 1.0 - self.episode_starts[step]
        self.returns = self.advantages + self.values
        self.advantages = self._comparable(self.advantages)

    def _comparable(self, advantages: np.ndarray) -> np.ndarray:
        """Advantages minus their group's mean at the step, in units of their group's spread, within ADVANTAGE_LIMIT."""
        groups = advantages.reshape(self.buffer_size, -1, self.rollouts_per_arrivals)
        if self.rollouts_per_arrivals > 1:
            groups = groups - groups.mean(axis=2, keepdims=True)
        spread = groups.std(axis=(0, 2), keepdims=True) + 1e-8
        limited: np.ndarray = np.clip(groups / spread, -ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)
        return limited.reshape(advantages.shape)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """Yield the rollout's decisions in random order, `batch_size` at a time; all at once by default."""
        assert self.full, "the rollout is not complete"
        decisions = self.buffer_size * self.n_envs
        order = np.random.permutation(decisions)  # noqa: NPY002 - as stable-baselines3; a checkpoint keeps its state
        for start in range(0, decisions, batch_size or decisions):
            yield self._get_samples(order[start : start + (batch_size or decisions)])

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> DictRolloutBufferSamples:
        """The decisions numbered step * n_envs + environment."""
        del env  # as in the base class

        def of(kept: np.ndarray) -> Tensor:
            flat = kept.reshape(-1, *kept.shape[2:])  # a view: base classes would first copy everything by environment
            return torch.from_numpy(flat.take(batch_inds, axis=0)).to(self.device)

        return DictRolloutBufferSamples(
            observations={name: of(kept) for name, kept in self.observations.items()},
            actions=of(self.actions),
            old_values=of(self.values),
            old_log_prob=of(self.log_probs),
            advantages=of(self.advantages),
            returns=of(self.returns),
        )
