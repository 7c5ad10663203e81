"""PPO for placements: its arguments, and the construction of the learner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule, set_random_seed

from agents.discounting import LastStep, TimeDiscountedBuffer, TimedRewards
from agents.gym_vec_env import MakeVecEnv
from agents.placement_network import Actor
from agents.sb3_policy import PlacementActorCritic


@dataclass(frozen=True)
class PPOArguments:
    """The arguments of a training run, without those of its environment.

    Clip range, lambda, value weight and gradient limit are stable-baselines3's defaults. The other defaults come from
    trials of 400,000 to 1,000,000 decisions on five families of `envs.generators` (2P2D, Qwen3-8B,
    `step_budget="fixed"`), evaluated on seeds from 700,000 on, which no table reports. The most important settings, in
    this order, were advantages relative to a group and scaled by load (TimeDiscountedBuffer), the learning rate, and
    the reward scale. With pairs of nodes as choices there are two kinds of locally optimal policies, which no change of
    a single decision improves: one uses all nodes alike, the other keeps the roles. Both runs with a reward scale of
    0.2 ended in the first kind, which has the lower P95 TTFT on four of the five families; all five runs with 0.02
    ended in the second. Learning rate, epochs and width come from later trials of 250,000 decisions on three families,
    which optimised the time of an update; docs/learned.md compares their P95 TTFTs with the earlier values (1e-3, 4 and
    64, with more layers).

    Attributes:
        timesteps: number of decisions to train on, rounded up to whole rollouts.
        seed: seed of weights, sampling and episodes.
        n_envs: number of environments stepped together.
        n_steps: decisions of each environment per rollout.
        batch_size: decisions per gradient step; must divide n_envs * n_steps.
        n_epochs: passes over a rollout.
        learning_rate: initial learning rate of Adam, decreasing linearly to 0.
        discount_rate_per_s: beta in the discount exp(-beta * dt).
        reward_scale: factor on rewards before learning.
        gae_lambda: smallest lambda of GAE.
        gae_time_s: increases lambda for short steps, see TimeDiscountedBuffer.
        clip_range: clip range of the probability ratio.
        entropy_weight: initial weight of the entropy, decreasing linearly to 0.
        kl_weight: weight of the KL divergence from the actor that a run starts from, if it has a warm start.
        value_weight: weight of the value loss.
        max_grad_norm: gradients are clipped to this norm.
        target_kl: a rollout's epochs stop early if the KL divergence is above 1.5 times this.
        rollouts_per_arrivals: environments that share arrivals, see TimeDiscountedBuffer; must divide n_envs.
        hidden: width of the network, see PlacementNetwork.
        skip_start: initial weights of the skip connection, see PlacementNetwork; none by default.
    """

    timesteps: int = 200_000
    seed: int = 0
    n_envs: int = 40
    n_steps: int = 200
    batch_size: int = 800
    n_epochs: int = 3
    learning_rate: float = 2e-3
    discount_rate_per_s: float = 0.03
    reward_scale: float = 0.2
    gae_lambda: float = 0.95
    gae_time_s: float = 1.0
    clip_range: float = 0.2
    entropy_weight: float = 0.01
    kl_weight: float = 0.0
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float | None = 0.03
    rollouts_per_arrivals: int = 4
    hidden: int = 32
    skip_start: Mapping[int, float] = field(default_factory=dict)

    def for_groups(self, groups: int) -> "PPOArguments":
        """The same arguments with this number of groups of environments, and 10 batches per rollout.

        The `rollouts_per_arrivals` environments of a group get the same arrivals.
        """
        n_envs = groups * self.rollouts_per_arrivals
        return replace(self, n_envs=n_envs, batch_size=n_envs * self.n_steps // _BATCHES)


def refining(arguments: PPOArguments) -> PPOArguments:
    """The same run with smaller steps and less exploration, for a start from a distilled policy.

    The values come from trials of 1.2 million decisions on five families and four TBT SLOs.
    """
    return replace(
        arguments,
        n_steps=160,
        learning_rate=7e-4,
        entropy_weight=0.003,
        reward_scale=0.015,
        target_kl=0.02,
        kl_weight=0.3,
        hidden=64,
    )


_BATCHES = 10  # per rollout, if the number of environments depends on the number of workloads


def build(
    make_vec_env: MakeVecEnv,
    arguments: PPOArguments,
    first_episodes: Sequence[int] | None = None,
    algorithm: type[PPO] = PPO,
) -> PPO:
    """Build the learner.

    This seeds the global generators of Python, NumPy and torch, which stable-baselines3 uses, and limits torch to one
    thread, because a second one is slower at this size.

    Args:
        make_vec_env: makes the environments.
        arguments: the run's arguments.
        first_episodes: number of the first episode in each environment; None: 0.
        algorithm: PPO or a subclass with the same arguments.
    """
    torch.set_num_threads(1)
    _keep_freed_memory()
    set_random_seed(arguments.seed)
    last_step = LastStep()
    env = make_vec_env(first_episodes or [0] * arguments.n_envs)
    return algorithm(
        PlacementActorCritic,
        TimedRewards(env, arguments.reward_scale, last_step),
        learning_rate=LinearSchedule(arguments.learning_rate, 0.0, 1.0),
        n_steps=arguments.n_steps,
        batch_size=arguments.batch_size,
        n_epochs=arguments.n_epochs,
        gamma=1.0,  # the buffer discounts, by time
        gae_lambda=arguments.gae_lambda,
        clip_range=arguments.clip_range,
        ent_coef=1.0,  # the policy weighs entropy and divergence itself, see Bonus
        vf_coef=arguments.value_weight,
        max_grad_norm=arguments.max_grad_norm,
        normalize_advantage=False,  # the buffer scales them by group; scaling by batch would mix loads
        target_kl=arguments.target_kl,
        rollout_buffer_class=TimeDiscountedBuffer,
        rollout_buffer_kwargs={
            "last_step": last_step,
            "rollouts_per_arrivals": arguments.rollouts_per_arrivals,
            "rate_per_s": arguments.discount_rate_per_s,
            "gae_time_s": arguments.gae_time_s,
        },
        policy_kwargs={
            "hidden": arguments.hidden,
            "skip_start": dict(arguments.skip_start),
            # One pass over the parameters instead of several dozen small operations.
            "optimizer_kwargs": {"eps": 1e-5, "fused": True},
        },
        device="cpu",
    )


def _keep_freed_memory() -> None:
    """Let the C library keep memory that an update frees for the next update, which saves a quarter of its time.

    glibc returns the end of its heap to the system if more is free there than twice the largest block ever freed, and
    each batch would then cause page faults: about 1,800 for 800 decisions with 16 choices. Freeing one block just below
    32 MiB, the size up to which glibc adapts, prevents this. With other C libraries this has no effect.
    """
    np.empty(31 * 2**20, dtype=np.uint8)


class Bonus(BaseCallback):
    """Decreases the entropy weight linearly to 0, and keeps the policy near `anchor`; stable-baselines3 has neither."""

    def __init__(self, arguments: PPOArguments, anchor: Actor | None) -> None:
        super().__init__()
        self.arguments = arguments
        self.anchor = anchor

    def _on_rollout_start(self) -> None:
        # Computed from the counts, because stable-baselines3 has not set its progress in the first rollout of a resumed
        # run.
        left = 1.0 - self.model.num_timesteps / self.model._total_timesteps
        self.model.policy.set_bonus(left * self.arguments.entropy_weight, self.arguments.kl_weight, self.anchor)

    def _on_step(self) -> bool:
        return True
