"""The vectorised environment for stable-baselines3."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.episodes import TrainingSeeds, training_seed
from agents.vec_env import PlacementVecEnv
from envs.placement_env import PrefillPlacementEnv
from tests.toy import toy_profile

TOY: dict[str, Any] = {"profile": toy_profile(), "rate_rps": 14.0, "horizon_requests": 7}


def toy(**arguments: Any) -> PrefillPlacementEnv:
    return PrefillPlacementEnv(**TOY | arguments)


def rows(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    found: np.ndarray = (rng.random(masks.shape) * masks).argmax(axis=1)
    return found


def test_it_equals_a_dummy_vec_env_to_the_byte() -> None:
    batched, apart = PlacementVecEnv([toy() for _ in range(3)]), DummyVecEnv([toy] * 3)
    assert batched.observation_space == apart.observation_space
    assert batched.action_space == apart.action_space
    rng = np.random.default_rng(0)
    for env in (batched, apart):
        env.seed(5)
    played, expected = batched.reset(), apart.reset()
    totals, ended = np.zeros(3), 0
    for step in range(1, 31):
        assert all(played[key].tobytes() == expected[key].tobytes() for key in expected)
        chosen = rows(played["action_mask"], rng)
        (played, rewards, dones, infos), (expected, *others) = batched.step(chosen), apart.step(chosen)
        assert rewards.tobytes() == others[0].tobytes()
        assert dones.tolist() == others[1].tolist()
        assert batched.dt_s.tolist() == [np.float32(info["dt_s"]) for info in others[2]]
        totals += rewards
        for index, (info, other) in enumerate(zip(infos, others[2], strict=True)):
            assert (info != {}) == dones[index] == (step % 7 == 0)
            if info:
                ended += 1
                last = other["terminal_observation"]
                assert all(info["terminal_observation"][key].tobytes() == last[key].tobytes() for key in last)
                assert info["TimeLimit.truncated"] is other["TimeLimit.truncated"] is True
                assert repr(info["episode_summary"]) == repr(other["episode_summary"])
                assert info["episode"] == {"r": pytest.approx(totals[index], rel=1e-5), "l": 7}
                totals[index] = 0.0
    assert ended == 12
    assert batched.episodes == [5, 5, 5]


def test_each_episode_has_a_separate_seed() -> None:
    def seed_of(index: int, episode: int) -> int:
        return training_seed(3, index // 2, episode)

    first = PlacementVecEnv([toy() for _ in range(4)], seed_of)
    later = PlacementVecEnv([toy() for _ in range(4)], seed_of, first_episodes=[2] * 4)
    seen = [first.reset()]
    for _ in range(2 * 7):
        seen.append(first.step(np.argmax(seen[-1]["action_mask"], axis=1))[0])
    resumed = later.reset()
    assert all(resumed[key].tobytes() == seen[-1][key].tobytes() for key in resumed)
    assert first.episodes == later.episodes == [3] * 4
    request = seen[0]["request"]
    assert request[0].tobytes() == request[1].tobytes() != request[2].tobytes()


def test_rewards_are_scaled_per_environment() -> None:
    plain, scaled = PlacementVecEnv([toy(), toy()]), PlacementVecEnv([toy(), toy()], reward_scales=[1.0, 0.5])
    rng = np.random.default_rng(0)
    for env in (plain, scaled):
        env.seed(1)
    observation, _ = plain.reset(), scaled.reset()
    for _ in range(6):
        chosen = rows(observation["action_mask"], rng)
        observation, rewards, *_ = plain.step(chosen)
        assert scaled.step(chosen)[1].tolist() == pytest.approx((rewards * [1.0, 0.5]).tolist(), rel=1e-6)


def test_different_shapes_share_a_vector_if_their_rows_are_equal() -> None:
    with pytest.raises(ValueError, match="number of `rows`"):
        PlacementVecEnv([toy(), toy(cluster="1P2D")])
    env = PlacementVecEnv([toy(), toy(cluster="1P2D", rows=16)])
    observation = env.reset()
    assert observation["action_mask"][1, 9:].sum() == 0
    assert observation["choices"].shape == (2, 16, 42)


def test_masks_and_attributes_are_accessible_by_name() -> None:
    env = PlacementVecEnv([toy(), toy()])
    observation = env.reset()
    assert np.array(env.env_method("action_masks")).tolist() == observation["action_mask"].astype(bool).tolist()
    assert env.get_attr("rows") == [16, 16]
    env.set_attr("anything", 3, indices=1)
    assert env.get_attr("anything", indices=[1]) == [3]
    assert env.env_is_wrapped(DummyVecEnv) == [False, False]


@pytest.mark.slow
def test_maskable_ppo_trains_on_it() -> None:
    sb3_contrib = pytest.importorskip("sb3_contrib")
    env = PlacementVecEnv([toy(horizon_requests=40) for _ in range(4)])
    model = sb3_contrib.MaskablePPO("MultiInputPolicy", env, n_steps=30, batch_size=60, n_epochs=1, seed=1)
    model.learn(240)
    assert len(model.ep_info_buffer) > 0


@pytest.mark.slow
def test_episodes_do_not_depend_on_the_number_of_processes() -> None:
    seeds = TrainingSeeds(5, 2)
    one, split = (
        PlacementVecEnv(
            [toy(workload=name) for name in ("burst", "LPHD", "HPLD")], seeds, [1, 0, 2], [1.0, 2.0, 3.0], n
        )
        for n in (1, 2)
    )
    try:
        rng = np.random.default_rng(0)
        played, expected = split.reset(), one.reset()
        for _ in range(20):
            assert all(played[key].tobytes() == expected[key].tobytes() for key in expected)
            chosen = rows(expected["action_mask"], rng)
            (played, *others), (expected, *rest) = split.step(chosen), one.step(chosen)
            assert [array.tobytes() for array in others[:2]] == [array.tobytes() for array in rest[:2]]
            assert repr(others[2]) == repr(rest[2])
            assert split.dt_s.tobytes() == one.dt_s.tobytes()
        assert split.episodes == one.episodes == [4, 3, 5]
        assert np.array_equal(split.env_method("action_masks"), one.env_method("action_masks"))
        split.set_attr("anything", 3, indices=2)
        assert split.get_attr("anything", indices=[2]) == [3]
        for wrong in ([0, 0, 99], [99, 0, 0]):  # in both processes
            with pytest.raises(ValueError, match="action 99 is not a row"):
                split.step(np.array(wrong))
            assert split.get_attr("rows") == [16] * 3
    finally:
        split.close()


@pytest.mark.slow
def test_an_ended_process_is_an_error_and_does_not_hang() -> None:
    env = PlacementVecEnv([toy(), toy()], processes=2)
    env.reset()
    env._elsewhere[0]._process.kill()
    env._elsewhere[0]._process.join()
    with pytest.raises((RuntimeError, OSError)):
        env.step(np.zeros(2, dtype=np.int64))
