"""Discounting by time rather than by step, for decisions that are unevenly spaced.

A reward is the cost of the time between two decisions, so the discount between them is exp(-beta * dt): a
semi-Markov decision process (Bradtke and Duff 1994). `info["dt_s"]` of a step is the time from that decision
to the next.
"""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

ADVANTAGE_LIMIT = 3.0
"""Advantages are limited to this many standard deviations."""


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
      mean relative cost.

    Args:
        args: DictRolloutBuffer's own.
        rollouts_per_arrivals: environments in a group; 1 for no baseline.
        rate_per_s: beta; a step of dt seconds is discounted by exp(-beta * dt).
        gae_time_s: a step's lambda is exp(-dt / gae_time_s) if that is above `gae_lambda`: where decisions are dense,
            what an action does shows only after many of them. 0: `gae_lambda` for all steps.
        kwargs: DictRolloutBuffer's own.
    """

    advantages: np.ndarray
    returns: np.ndarray
    dt_s: np.ndarray

    def __init__(
        self,
        *args: Any,
        rollouts_per_arrivals: int = 1,
        rate_per_s: float = 0.0,
        gae_time_s: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.rate_per_s = rate_per_s
        self.gae_time_s = gae_time_s
        super().__init__(*args, **kwargs)
        if self.n_envs % rollouts_per_arrivals:
            raise ValueError(f"{self.n_envs} environments cannot be split into groups of {rollouts_per_arrivals}")
        self.rollouts_per_arrivals = rollouts_per_arrivals

    def reset(self) -> None:
        """Forget the rollout."""
        super().reset()
        # nan until written, so that a step whose time was never recorded cannot pass unnoticed.
        self.dt_s = np.full((self.buffer_size, self.n_envs), np.nan, dtype=np.float32)

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
        next_values = last_values.cpu().numpy().reshape(-1)
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


class TimeDiscount(BaseCallback):
    """Writes each step's time into the buffer, scales rewards, and bootstraps truncated episodes.

    stable-baselines3 would bootstrap with its one gamma, so the truncation flag is taken from it once that is
    done here. `reward_total` is the sum of a rollout's rewards as the environment gave them.

    Args:
        reward_scale: rewards are multiplied by this before the network sees them.
    """

    def __init__(self, reward_scale: float) -> None:
        super().__init__()
        self.reward_scale = reward_scale
        self.reward_total = 0.0

    def _on_rollout_start(self) -> None:
        self.reward_total = 0.0

    def _on_step(self) -> bool:
        rewards, infos = self.locals["rewards"], self.locals["infos"]
        dt_s = np.array([info["dt_s"] for info in infos], dtype=np.float32)
        buffer = self.model.rollout_buffer
        discounts = np.exp(-buffer.rate_per_s * dt_s)
        buffer.dt_s[buffer.pos] = dt_s
        self.reward_total += float(rewards.sum())
        rewards *= self.reward_scale  # in place: this is the array that goes into the buffer
        for index in np.flatnonzero(self.locals["dones"]):
            if infos[index]["TimeLimit.truncated"]:
                infos[index]["TimeLimit.truncated"] = False
                rewards[index] += discounts[index] * self._value(infos[index]["terminal_observation"])
        return True

    def _value(self, observation: dict[str, np.ndarray]) -> float:
        with torch.no_grad():
            return float(self.model.policy.predict_values(self.model.policy.obs_to_tensor(observation)[0]))
