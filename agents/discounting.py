"""Discounting by time instead of by step, for decisions at irregular times.

A reward is the negative cost of the time between two decisions, so the discount between them is exp(-beta * dt), where
dt is that time in seconds: a semi-Markov decision process (Bradtke and Duff 1994).

stable-baselines3 has one discount gamma for all steps, and its rollout buffer gets neither times nor infos. Therefore
two objects share a `LastStep`: `TimedRewards`, a wrapper of the environments, writes the step just made;
`TimeDiscountedBuffer` reads it and discounts. PPO gets gamma = 1.
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

FloatArray = NDArray[np.float32]


def symlog(values: FloatArray) -> FloatArray:
    """sign(x) log(1 + |x|): the scale on which the critic learns returns (Hafner et al. 2023, arXiv 2301.04104)."""
    scaled: FloatArray = np.sign(values) * np.log1p(np.abs(values))
    return scaled


def symexp(values: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return torch.sign(values) * torch.expm1(torch.abs(values))


ADVANTAGE_LIMIT = 3.0
"""Advantages are clipped to this many standard deviations."""


class LastStep:
    """The last step of all environments: its simulated time and its rewards, scaled for learning."""

    def __init__(self) -> None:
        self._step: tuple[FloatArray, FloatArray] | None = None

    def put(self, dt_s: FloatArray, rewards: FloatArray) -> None:
        """Store a step of the environments: seconds (n_envs,) and scaled rewards (n_envs,)."""
        self._step = dt_s, rewards

    def take(self) -> tuple[FloatArray, FloatArray]:
        """Return the step and delete it, so that no step is used twice.

        Raises:
            RuntimeError: there is no step, because the environments have no TimedRewards that shares this object.
        """
        if self._step is None:
            raise RuntimeError("no step was timed: wrap the environments in TimedRewards(env, scale, buffer.last_step)")
        step, self._step = self._step, None
        return step


class TimedRewards(VecEnvWrapper):
    """Scales rewards, records the time of each step, and sums the unscaled rewards.

    Args:
        venv: environments; the simulated seconds of a step are `venv.dt_s` (n_envs,) or, without this attribute,
            info["dt_s"].
        reward_scale: factor on the rewards for the learner.
        last_step: shared with the learner's TimeDiscountedBuffer. The buffer of a model loaded from a file has one:
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
        """Finish a step; the rewards are scaled."""
        observations, rewards, dones, infos = self.venv.step_wait()
        dt_s = self.venv.dt_s if self._times_itself else [info["dt_s"] for info in infos]
        self._reward_total += float(rewards.sum(dtype=np.float64))
        scaled = np.asarray(rewards, dtype=np.float32) * np.float32(self.reward_scale)
        self.last_step.put(np.array(dt_s, dtype=np.float32), scaled)
        # The learner adds values of last observations to the array, so it gets a copy.
        return observations, scaled.copy(), dones, infos

    def take_reward_total(self) -> float:
        """The sum of all unscaled rewards since the last call."""
        total, self._reward_total = self._reward_total, 0.0
        return total


class TimeDiscountedBuffer(DictRolloutBuffer):
    """Rollout buffer whose advantages use a separate discount for each step.

    Costs differ tenfold between light load and overload and have a heavy tail, so that the worst minute of a rollout
    would dominate raw advantages and the critic's gradients. Three measures prevent this:

    - Consecutive environments with the same arrivals form a group, and the mean advantage of the group at a step is
      subtracted: an effect of the arrivals on all of them (such as a coming burst) is no information about an action.
      This is an input-dependent baseline, arXiv 1807.02264; up to a constant factor it adds no bias.
    - A group's advantages are divided by their standard deviation over the rollout and clipped to ADVANTAGE_LIMIT
      deviations, so that all loads have equal weight. This changes the objective from the mean cost over loads towards
      the mean relative cost. PPO must not normalize advantages (`normalize_advantage=False`), because it would scale a
      batch by the spread of the loads that happen to be in it.
    - The critic learns `symlog` of the returns. Otherwise the gradient of one overloaded group uses up the limit on the
      norm of all gradients, and the policy stops learning. `returns` and `values` are on this scale once the advantages
      are computed.

    A step is copied once into arrays that are reused for all rollouts, and once into each batch.

    Args:
        args: arguments of DictRolloutBuffer.
        last_step: written by the TimedRewards around the environments.
        rollouts_per_arrivals: environments per group; 1: no baseline.
        rate_per_s: beta; a step of dt seconds is discounted by exp(-beta * dt).
        gae_time_s: a step's lambda is the larger of `gae_lambda` and exp(-dt / gae_time_s), because if decisions are
            frequent, an action takes effect only after many of them. 0: `gae_lambda` for all steps.
        kwargs: arguments of DictRolloutBuffer; `gamma` is not used.
    """

    advantages: np.ndarray
    values: np.ndarray
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
        """Start a new rollout."""
        if not hasattr(self, "observations"):
            super().reset()  # creates the arrays, which all rollouts share
        self.pos, self.full, self.generator_ready = 0, False, False
        # nan until written, so that a missing step cannot go unnoticed.
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
        """Store a step of all environments.

        Args:
            obs: observations before the step.
            action: actions, (n_envs, 1).
            reward: rewards, (n_envs,), plus the value of the last observation if an episode was truncated.
            episode_start: whether the step is the first of an episode, (n_envs,).
            value: values of the observations, (n_envs, 1).
            log_prob: log probabilities of the actions, (n_envs,).
        """
        at = self.pos
        dt_s, rewards = self.last_step.take()
        self.dt_s[at] = dt_s
        # stable-baselines3 has added the value of the next state undiscounted, because gamma is 1.
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
        """Compute GAE(lambda), arXiv 1506.02438, with a discount and a lambda per step.

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
        self.returns = symlog(self.advantages + self.values)
        self.values = symlog(self.values)
        self.advantages = self._comparable(self.advantages)

    def _comparable(self, advantages: np.ndarray) -> np.ndarray:
        """Subtract a group's mean at each step, divide by the group's spread, and clip to ADVANTAGE_LIMIT."""
        groups = advantages.reshape(self.buffer_size, -1, self.rollouts_per_arrivals)
        if self.rollouts_per_arrivals > 1:
            groups = groups - groups.mean(axis=2, keepdims=True)
        spread = groups.std(axis=(0, 2), keepdims=True) + 1e-8
        limited: np.ndarray = np.clip(groups / spread, -ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)
        return limited.reshape(advantages.shape)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """Yield the rollout's decisions in random order in batches of `batch_size`; by default, in one batch."""
        assert self.full, "the rollout is not complete"
        decisions = self.buffer_size * self.n_envs
        order = np.random.permutation(decisions)  # noqa: NPY002 - as in stable-baselines3; a checkpoint stores its state
        for start in range(0, decisions, batch_size or decisions):
            yield self._get_samples(order[start : start + (batch_size or decisions)])

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> DictRolloutBufferSamples:
        """The decisions with the numbers step * n_envs + environment."""
        del env  # unused, as in the base class

        def of(kept: np.ndarray) -> Tensor:
            flat = kept.reshape(-1, *kept.shape[2:])  # a view; the base class would copy everything
            return torch.from_numpy(flat.take(batch_inds, axis=0)).to(self.device)

        return DictRolloutBufferSamples(
            observations={name: of(kept) for name, kept in self.observations.items()},
            actions=of(self.actions),
            old_values=of(self.values),
            old_log_prob=of(self.log_probs),
            advantages=of(self.advantages),
            returns=of(self.returns),
        )
