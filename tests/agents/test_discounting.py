"""Discounting by time: GAE against its definition, baselines over shared arrivals, and truncation."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback

from agents.discounting import ADVANTAGE_LIMIT, LastStep, TimeDiscountedBuffer, TimedRewards, symexp, symlog
from agents.ppo import PPOArguments, build
from tests.agents.observations import make_observation, seeds
from tests.agents.standin_env import ShortestQueueEnv, in_turn, observation_space

BETA = 0.5


def unscaled(values: np.ndarray) -> np.ndarray:
    """Returns or values on the scale of rewards."""
    found: np.ndarray = symexp(torch.as_tensor(values)).numpy()
    return found


def test_the_critics_scale_can_be_inverted_and_keeps_order() -> None:
    values = np.array([-1e6, -3.0, -1e-3, 0.0, 1e-3, 3.0, 1e6], np.float32)
    scaled = symlog(values)
    np.testing.assert_allclose(unscaled(scaled), values, rtol=1e-5)
    assert (np.diff(scaled) > 0).all()


def filled_buffer(
    seed: int, steps: int, envs: int, gae_lambda: float, group: int = 1, gae_time_s: float = 0.0
) -> tuple[TimeDiscountedBuffer, np.random.Generator]:
    rng = np.random.default_rng(seed)
    buffer = TimeDiscountedBuffer(
        steps,
        observation_space(2),
        spaces.Discrete(2),
        "cpu",
        gae_lambda,
        1.0,
        envs,
        last_step=LastStep(),
        rollouts_per_arrivals=group,
        rate_per_s=BETA,
        gae_time_s=gae_time_s,
    )
    shape = (steps, envs)
    buffer.rewards = rng.normal(size=shape).astype(np.float32)
    buffer.values = rng.normal(size=shape).astype(np.float32)
    buffer.dt_s = rng.exponential(size=shape).astype(np.float32)
    buffer.episode_starts = (rng.random(shape) < 0.2).astype(np.float32)
    return buffer, rng


@settings(max_examples=50)
@given(seeds, st.sampled_from([0.0, 5.0]))
def test_gae_with_uneven_steps_equals_its_definition(seed: int, gae_time_s: float) -> None:
    steps, envs, gae_lambda = 7, 3, 0.9
    buffer, rng = filled_buffer(seed, steps, envs, gae_lambda, gae_time_s=gae_time_s)
    discounts = np.exp(-BETA * buffer.dt_s)
    lambdas = np.maximum(gae_lambda, np.exp(-buffer.dt_s / gae_time_s)) if gae_time_s else gae_lambda + 0 * discounts
    last_values, dones = rng.normal(size=envs).astype(np.float32), rng.random(envs) < 0.5
    buffer.compute_returns_and_advantage(torch.as_tensor(last_values).reshape(-1, 1), dones)

    values = np.vstack([unscaled(buffer.values), last_values])
    ends = np.vstack([buffer.episode_starts[1:], dones]).astype(bool)
    for env in range(envs):
        for start in range(steps):
            # Sum over t of (product of lambda * discount between start and t) times the TD error at t.
            total, weight = 0.0, 1.0
            for step in range(start, steps):
                following = 0.0 if ends[step, env] else discounts[step, env]
                error = buffer.rewards[step, env] + following * values[step + 1, env] - values[step, env]
                total += weight * error
                weight *= lambdas[step, env] * following
            # Returns are advantages before scaling, plus values.
            assert unscaled(buffer.returns)[start, env] - unscaled(buffer.values)[start, env] == pytest.approx(
                total, abs=1e-4
            )


def test_constant_cost_rate_has_the_value_of_the_integral() -> None:
    """A cost rate of 1 until time T costs (1 - exp(-beta T)) / beta, whatever the times of decisions."""
    beta, dt_s = BETA, np.random.default_rng(5).exponential(0.2, size=40)
    buffer, _ = filled_buffer(0, 40, 1, gae_lambda=1.0)
    buffer.values[:] = 0.0
    buffer.episode_starts[:] = 0.0
    buffer.dt_s = dt_s.astype(np.float32).reshape(-1, 1)
    buffer.rewards = ((1 - np.exp(-beta * dt_s)) / beta).astype(np.float32).reshape(-1, 1)
    buffer.compute_returns_and_advantage(torch.zeros(1, 1), np.array([True]))
    assert unscaled(buffer.returns)[0, 0] == pytest.approx((1 - np.exp(-beta * dt_s.sum())) / beta, rel=1e-5)


def test_common_effects_of_arrivals_are_not_in_the_advantages() -> None:
    alone, _ = filled_buffer(3, 50, 4, 0.95, group=2)
    shifted, rng = filled_buffer(3, 50, 4, 0.95, group=2)
    shifted.dt_s[:] = alone.dt_s[:] = 0.2
    shifted.episode_starts[:] = alone.episode_starts[:] = 0.0
    shifted.rewards += np.repeat(rng.normal(size=(50, 2)) * 5.0, 2, axis=1).astype(np.float32)
    for buffer in (alone, shifted):
        buffer.compute_returns_and_advantage(torch.ones(4, 1), np.zeros(4, dtype=bool))
    np.testing.assert_allclose(shifted.advantages, alone.advantages, atol=1e-3)
    assert not np.allclose(unscaled(shifted.returns), unscaled(alone.returns), atol=1.0)
    np.testing.assert_allclose(alone.advantages[:, 0], -alone.advantages[:, 1], atol=1e-5)


def test_all_loads_have_equal_weight_and_steps_are_clipped() -> None:
    buffer, _ = filled_buffer(4, 200, 4, 0.95, group=2)
    buffer.rewards[:, 2:] *= 100.0
    buffer.values[:, 2:] *= 100.0
    buffer.rewards[7, 0] = 1e4
    buffer.compute_returns_and_advantage(torch.zeros(4, 1), np.zeros(4, dtype=bool))
    assert buffer.advantages[7, 0] == ADVANTAGE_LIMIT
    assert np.abs(buffer.advantages).max() <= ADVANTAGE_LIMIT
    assert buffer.advantages[:, 2:].std() == pytest.approx(1.0, abs=0.05)


def test_a_step_without_a_recorded_time_gives_nan() -> None:
    buffer, _ = filled_buffer(0, 4, 2, 0.95)
    buffer.reset()
    buffer.compute_returns_and_advantage(torch.ones(2, 1), np.zeros(2, dtype=bool))
    assert np.isnan(buffer.advantages).all()


def test_a_step_without_a_time_is_an_error() -> None:
    buffer, _ = filled_buffer(0, 4, 2, 0.95)
    buffer.reset()
    step = (
        make_observation(0, 2, batch=2),
        np.zeros((2, 1), np.int64),
        np.zeros(2, np.float32),
        np.zeros(2, bool),
        torch.zeros(2, 1),
        torch.zeros(2),
    )
    buffer.last_step.put(np.ones(2, np.float32), np.zeros(2, np.float32))
    buffer.add(*step)
    with pytest.raises(RuntimeError, match="TimedRewards"):
        buffer.add(*step)  # the time of the previous step is not used again


@settings(max_examples=25)
@given(seeds, st.integers(1, 5), st.integers(1, 7))
def test_batches_contain_every_decision_once_and_unchanged(seed: int, envs: int, batch_size: int) -> None:
    steps, rng = 3, np.random.default_rng(seed)
    buffer = TimeDiscountedBuffer(
        steps, observation_space(2), spaces.Discrete(2), "cpu", 0.9, 1.0, envs, last_step=LastStep()
    )
    for _ in range(2):  # the second rollout must not contain the first
        buffer.reset()
        added = []
        for _ in range(steps):
            observation = make_observation(int(rng.integers(2**32)), 2, batch=envs)
            actions = rng.integers(2, size=(envs, 1))
            values, log_probabilities = torch.as_tensor(rng.random((envs, 1))), torch.as_tensor(rng.random(envs))
            buffer.last_step.put(np.ones(envs, np.float32), np.zeros(envs, np.float32))
            buffer.add(observation, actions, np.ones(envs, np.float32), np.zeros(envs), values, log_probabilities)
            for env in range(envs):
                row = [*(observation[name][env].ravel() for name in sorted(observation)), actions[env]]
                added.append(
                    np.concatenate([*row, symlog(values[env].numpy()), log_probabilities[env : env + 1].numpy()])
                )
        buffer.compute_returns_and_advantage(torch.zeros(envs, 1), np.zeros(envs, bool))
        found = []
        for batch in buffer.get(batch_size):
            assert len(batch.actions) <= batch_size
            for k in range(len(batch.actions)):
                row = [*(batch.observations[name][k].ravel() for name in sorted(observation)), batch.actions[k]]
                found.append(
                    np.concatenate([*row, batch.old_values[k : k + 1].numpy(), batch.old_log_prob[k : k + 1].numpy()])
                )
        np.testing.assert_allclose(sorted(map(tuple, found)), sorted(map(tuple, added)), atol=1e-6)


def test_a_truncated_episode_is_bootstrapped_with_its_own_discount() -> None:
    """With one decision per episode, a return is reward * scale + exp(-beta dt) * V(last observation)."""
    arguments = PPOArguments(
        timesteps=8,
        n_envs=2,
        n_steps=4,
        batch_size=8,
        n_epochs=1,
        hidden=8,
        discount_rate_per_s=2.0,
        reward_scale=3.0,
        gae_lambda=1.0,
        gae_time_s=0.0,
        learning_rate=0.0,
        rollouts_per_arrivals=1,
    )
    model = build(in_turn(arguments, lambda _: ShortestQueueEnv(decisions=1)), arguments)
    seen: list[tuple[np.ndarray, list[dict[str, object]]]] = []

    class Spy(BaseCallback):
        def _on_step(self) -> bool:
            seen.append((self.locals["rewards"].copy(), self.locals["infos"]))
            return True

    model.learn(8, callback=Spy(), log_interval=None)
    assert len(seen) == 4
    for step, (scaled, infos) in enumerate(seen):
        for env, info in enumerate(infos):
            last = model.policy.obs_to_tensor(info["terminal_observation"])[0]
            with torch.no_grad():
                value = float(model.policy.predict_values(last))
            expected = scaled[env] + np.exp(-2.0 * info["dt_s"]) * value
            assert unscaled(model.rollout_buffer.returns)[step, env] == pytest.approx(expected, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([0.2, 3.0]), st.booleans())
def test_timed_rewards_scale_rewards_and_sum_unscaled_ones(seed: int, scale: float, times_itself: bool) -> None:
    arguments = PPOArguments(n_envs=3, rollouts_per_arrivals=1, seed=seed)
    last_step = LastStep()
    plain, wrapped = (in_turn(arguments)([0] * 3) for _ in range(2))
    if times_itself:
        wrapped.dt_s = np.full(3, 7.0, np.float32)
    env = TimedRewards(wrapped, scale, last_step)
    plain.reset()
    observations = env.reset()
    total = 0.0
    for _ in range(40):
        actions = observations["action_mask"].argmax(axis=1)
        _, rewards, _, infos = plain.step(actions)
        observations, scaled, _, _ = env.step(actions)
        total += rewards.sum()
        np.testing.assert_allclose(scaled, scale * rewards, rtol=1e-6)
        dt_s, kept = last_step.take()
        np.testing.assert_array_equal(kept, scaled)
        assert not np.shares_memory(kept, scaled)
        np.testing.assert_allclose(dt_s, 7.0 if times_itself else [info["dt_s"] for info in infos])
    assert env.take_reward_total() == pytest.approx(total, rel=1e-5)
    assert env.take_reward_total() == 0.0
