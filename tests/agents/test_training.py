"""Training: learning, reproducibility, resumption after a kill, and the record."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents import checkpoint, training
from agents.discounting import TimedRewards
from agents.episodes import FIRST_TRAINING_SEED, TrainingEpisodes, TrainingSeeds, training_seed
from agents.gym_vec_env import MakeEnv
from agents.numpy_policy import NumpyActor
from agents.policy_file import load_policy, save_policy
from agents.ppo import PPOArguments, build
from agents.progress import ProgressLine, ProgressRow
from hardware_profiles.errors import InputError
from tests.agents.observations import LAYOUT
from tests.agents.standin_env import ShortestQueueEnv, TimesItself, in_turn

SMALL = PPOArguments(
    timesteps=512, n_envs=4, n_steps=32, batch_size=64, n_epochs=2, hidden=8, reward_scale=1.0, rollouts_per_arrivals=1
)


def make_env(stream: int) -> ShortestQueueEnv:
    del stream
    return ShortestQueueEnv()


def train(out_dir: Path, arguments: PPOArguments = SMALL, make: MakeEnv = make_env, resume: bool = False) -> PPO:
    return training.train(in_turn(arguments, make), arguments, out_dir, wandb_mode="disabled", resume=resume)


def weights(model: PPO) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()]).numpy()


@pytest.mark.slow
def test_ppo_learns_to_pick_the_shortest_queue(tmp_path: Path) -> None:
    arguments = PPOArguments(
        timesteps=40_960,
        n_envs=32,
        n_steps=32,
        batch_size=256,
        reward_scale=1.0,
        learning_rate=2e-3,
        gae_lambda=0.0,
        hidden=32,
        rollouts_per_arrivals=1,
    )
    model = train(tmp_path, arguments)
    save_policy(tmp_path / "policy.npz", model.policy.network, LAYOUT, {})
    actor = NumpyActor(load_policy(tmp_path / "policy.npz").weights)
    env = ShortestQueueEnv(choices=8, decisions=1000)  # twice as many choices as in training
    observation, _ = env.reset(seed=0)
    regrets = []
    for _ in range(1000):
        action = actor.act(observation)
        waits = np.where(observation["action_mask"] > 0, observation["choices"][:, 0], np.inf)
        regrets.append(waits[action] - waits.min())
        observation, *_ = env.step(action)
    assert np.mean(regrets) < 0.05  # a random choice: 0.3


def test_two_trainings_give_identical_weights(tmp_path: Path) -> None:
    first, second = (weights(train(tmp_path / name)) for name in ("a", "b"))
    np.testing.assert_array_equal(first, second)
    other = weights(train(tmp_path / "c", replace(SMALL, seed=1)))
    assert not np.array_equal(first, other)


def test_progress_has_one_row_per_rollout(tmp_path: Path) -> None:
    train(tmp_path)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ProgressRow._fields
    assert [int(row["timesteps"]) for row in rows] == [128, 256, 384, 512]
    for row in rows:
        assert float(row["reward_per_decision"]) < 0
        # All episodes have 32 decisions, so costs and rewards are equivalent.
        assert float(row["steps_per_s"]) > 0
        assert 0 < float(row["entropy"]) <= np.log(4) + 1e-6
    assert float(rows[0]["episode_cost"]) == pytest.approx(-32 * float(rows[0]["reward_per_decision"]), rel=1e-4)


class KilledError(Exception):
    pass


def killed_after(decisions: int) -> MakeEnv:
    """Environments that raise an error after a number of decisions."""
    made = 0

    class Mortal(ShortestQueueEnv):
        def step(self, action: object) -> tuple[object, float, bool, bool, dict[str, object]]:
            nonlocal made
            made += 1
            if made > decisions:
                raise KilledError
            return super().step(action)

    return lambda _: Mortal()


def test_a_killed_run_resumes_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(KilledError):
        train(tmp_path, make=killed_after(300))
    assert checkpoint.read(tmp_path / "checkpoint.pt")["timesteps"] == 256
    assert not (tmp_path / "model.zip").exists()
    made = []

    def counted(stream: int) -> ShortestQueueEnv:
        class Counted(ShortestQueueEnv):
            def step(self, action: object) -> tuple[object, float, bool, bool, dict[str, object]]:
                made.append(stream)
                return super().step(action)

        return Counted()

    model = train(tmp_path, make=counted, resume=True)
    assert model.num_timesteps == 512
    assert len(made) == 512 - 256
    lines = (tmp_path / "progress.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == [128, 256, 384, 512]
    walls = [float(line.split(",")[1]) for line in lines]
    assert walls == sorted(walls)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds if rollouts end with episodes, because episodes in progress are not in a checkpoint."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", make=killed_after(300))
    resumed = train(tmp_path / "killed", resume=True)
    np.testing.assert_array_equal(weights(resumed), weights(train(tmp_path / "whole")))
    rows = [(tmp_path / name / "progress.csv").read_text().splitlines() for name in ("killed", "whole")]
    for one, other in zip(*rows, strict=True):
        # All columns except the times and the mean over past episodes, which is not in a checkpoint.
        same = [column for column, name in enumerate(ProgressRow._fields) if name not in UNEQUAL]
        assert [one.split(",")[k] for k in same] == [other.split(",")[k] for k in same]


UNEQUAL = {"wall_s", "steps_per_s", "episode_cost", "episodes"}


def test_a_subclass_of_ppo_and_a_users_callback_work(tmp_path: Path) -> None:
    class Mine(PPO):
        updates = 0

        def train(self) -> None:
            type(self).updates += 1
            assert self.rollout_buffer.full
            super().train()

    class Watching(BaseCallback):
        rewards = 0.0

        def _on_step(self) -> bool:
            assert self.locals["rewards"].shape == self.locals["dones"].shape == (4,)
            self.rewards += float(self.locals["rewards"].sum())
            return True

    watching = Watching()
    model = training.train(
        in_turn(SMALL), SMALL, tmp_path / "mine", wandb_mode="disabled", algorithm=Mine, callback=watching
    )
    assert isinstance(model, Mine)
    assert Mine.updates == 4
    with (tmp_path / "mine" / "progress.csv").open() as file:
        total = 128 * sum(float(row["reward_per_decision"]) for row in csv.DictReader(file))
    assert watching.rewards == pytest.approx(total, rel=1e-4)  # the reward scale is 1
    np.testing.assert_array_equal(weights(model), weights(train(tmp_path / "plain")))


def test_times_as_an_attribute_and_in_infos_train_equally(tmp_path: Path) -> None:
    def timed(first: Sequence[int]) -> TimesItself:
        return TimesItself(make_env, TrainingSeeds(SMALL.seed, SMALL.rollouts_per_arrivals), first)

    model = training.train(timed, SMALL, tmp_path / "timed", wandb_mode="disabled")
    np.testing.assert_array_equal(weights(model), weights(train(tmp_path / "plain")))
    assert model.rollout_buffer.dt_s.min() > 0


def test_a_loaded_model_continues_to_learn(tmp_path: Path) -> None:
    train(tmp_path)
    model = PPO.load(tmp_path / "model.zip")
    before = weights(model)
    model.set_env(TimedRewards(in_turn(SMALL)([0] * 4), 1.0, model.rollout_buffer.last_step))
    model.learn(256)
    assert not np.array_equal(weights(model), before)


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = weights(train(tmp_path))
    record = (tmp_path / "progress.csv").read_bytes()
    again = train(tmp_path, make=killed_after(0), resume=True)
    np.testing.assert_array_equal(first, weights(again))
    assert (tmp_path / "progress.csv").read_bytes() == record


def test_restoring_restores_weights_optimizer_and_random_states(tmp_path: Path) -> None:
    model = train(tmp_path)
    drawn = torch.rand(3), np.random.random(3)  # noqa: NPY002
    state = checkpoint.read(tmp_path / "checkpoint.pt")
    other = build(in_turn(SMALL), replace(SMALL, seed=9), state["episodes"])
    checkpoint.restore(state, other)
    np.testing.assert_array_equal(weights(model), weights(other))
    torch.testing.assert_close(model.policy.optimizer.state_dict(), other.policy.optimizer.state_dict())
    torch.testing.assert_close(torch.rand(3), drawn[0])
    np.testing.assert_array_equal(np.random.random(3), drawn[1])  # noqa: NPY002
    # Each environment has finished 4 episodes and begun a fifth, without a decision so far.
    assert model.get_env().episodes == [5] * 4
    assert state["episodes"] == [4] * 4
    other.get_env().reset()
    assert other.get_env().episodes == [5] * 4


def test_resuming_without_a_matching_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resume"):
        train(tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        train(tmp_path, resume=True)
    train(tmp_path)
    with pytest.raises(InputError, match="gae_lambda"):
        train(tmp_path, replace(SMALL, gae_lambda=0.5), resume=True)


def test_stable_baselines3_loads_the_model(tmp_path: Path) -> None:
    model = train(tmp_path)
    np.testing.assert_array_equal(weights(PPO.load(tmp_path / "model.zip")), weights(model))


def test_a_warm_start_starts_from_the_given_weights(tmp_path: Path) -> None:
    start = train(tmp_path / "a").policy.network.state_dict()
    frozen = replace(SMALL, learning_rate=0.0)
    model = training.train(in_turn(frozen), frozen, tmp_path / "b", initial_weights=start, wandb_mode="disabled")
    torch.testing.assert_close(model.policy.network.state_dict(), start)


def test_episodes_depend_only_on_run_stream_and_number() -> None:
    def observations(stream: int, episode: int, run_seed: int = 0) -> np.ndarray:
        env = TrainingEpisodes(ShortestQueueEnv(), run_seed, stream, episode)
        env.reset()  # an earlier episode, which must not matter
        env.episode = episode
        return np.asarray(env.reset(seed=99)[0]["choices"])

    base = observations(1, 2)
    np.testing.assert_array_equal(base, observations(1, 2))
    for other in (observations(2, 2), observations(1, 3), observations(1, 2, run_seed=7)):
        assert not np.array_equal(base, other)
    seeds = {training_seed(0, stream, episode) for stream in range(20) for episode in range(20)}
    assert len(seeds) == 400
    assert min(seeds) >= FIRST_TRAINING_SEED


def test_environments_of_a_group_have_the_same_arrivals(tmp_path: Path) -> None:
    streams = []

    def make(stream: int) -> ShortestQueueEnv:
        streams.append(stream)
        return ShortestQueueEnv()

    model = train(tmp_path, replace(SMALL, rollouts_per_arrivals=2), make)
    assert streams == [0, 0, 1, 1]
    choices = model.get_env().reset()["choices"]
    np.testing.assert_array_equal(choices[0], choices[1])
    assert not np.array_equal(choices[1], choices[2])


def test_wandb_is_imported_only_if_used(tmp_path: Path) -> None:
    before = "wandb" in sys.modules
    train(tmp_path)
    assert ("wandb" in sys.modules) == before
    with pytest.raises(InputError, match="offline, online, disabled"):
        training.train(in_turn(SMALL), SMALL, tmp_path, wandb_mode="sometimes")  # type: ignore[arg-type]


def test_the_progress_line_shows_some_rows_and_always_the_last() -> None:
    out = StringIO()
    line = ProgressLine(total_timesteps=300, stream=out)
    for timesteps in (100, 200, 300):
        line(ProgressRow(timesteps, 1.0, 100.0, -0.5, 3.0, 1, 0.1, 1.0, 0.01, 0.0, 0.2))
    shown = out.getvalue().splitlines()
    assert [text.split()[1] for text in shown] == ["100/300", "300/300"]
