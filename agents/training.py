"""The training run: PPO with a progress record and checkpoints."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from torch import Tensor

from agents import checkpoint
from agents.gym_vec_env import MakeVecEnv
from agents.ppo import Bonus, PPOArguments, build
from agents.progress import ProgressFile, ProgressRow, WandbMirror, WandbMode
from envs.garbage_collection import rare_garbage_collection
from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing

CHECKPOINT_EVERY_S = 15.0


def train(
    make_vec_env: MakeVecEnv,
    arguments: PPOArguments,
    out_dir: Path,
    *,
    initial_weights: Mapping[str, Tensor] | None = None,
    on_progress: Callable[[ProgressRow], None] | None = None,
    wandb_mode: WandbMode = "offline",
    resume: bool = False,
    algorithm: type[PPO] = PPO,
    callback: BaseCallback | None = None,
) -> PPO:
    """Train a policy.

    This writes into `out_dir`: progress.csv (one row per rollout), checkpoint.pt (replaced every CHECKPOINT_EVERY_S
    seconds and at the end) and, at the end, model.zip for stable-baselines3.

    Args:
        make_vec_env: makes the environments.
        arguments: the run's arguments.
        out_dir: folder of the run, created if missing.
        initial_weights: state_dict of a PlacementNetwork to start from (a warm start); None: random weights. A resumed
            run only stays near its actor, see `PPOArguments.kl_weight`.
        on_progress: called with every row of progress.csv.
        wandb_mode: "offline", "online" or "disabled".
        resume: continue from out_dir/checkpoint.pt, which must be from a run with the same arguments; a finished run is
            returned unchanged.
        algorithm: PPO or a subclass with the same arguments.
        callback: an additional callback.

    Raises:
        InputError: there is no checkpoint to resume, or its arguments differ; the wandb mode is unknown, or wandb does
            not start.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    described = asdict(arguments)
    state = checkpoint.read(out_dir / "checkpoint.pt") if resume else None
    if state is not None:
        _refuse_other_arguments(state["arguments"], described, out_dir)
    model = build(make_vec_env, arguments, state["episodes"] if state else None, algorithm)
    with closing(model.get_env()):
        model.set_logger(
            Logger(folder=None, output_formats=[])
        )  # the default logger creates a folder in /tmp for every run
        if state is not None:
            checkpoint.restore(state, model)
        elif initial_weights is not None:
            model.policy.network.load_state_dict(initial_weights)
        anchor = None
        if initial_weights is not None:
            start = deepcopy(model.policy.network)
            start.load_state_dict(initial_weights)
            anchor = start.actor.requires_grad_(False)

        done = model.num_timesteps
        if done < arguments.timesteps:
            mirror = WandbMirror(wandb_mode, out_dir, described)
            recorder = _Recorder(out_dir, described, done, mirror, on_progress)
            exit_code = 1
            try:
                callbacks = [Bonus(arguments, anchor), recorder, *([callback] if callback else [])]
                with rare_garbage_collection():
                    # When resuming, stable-baselines3 adds the decisions already made to the given number.
                    model.learn(
                        arguments.timesteps - done,
                        callback=CallbackList(callbacks),
                        log_interval=None,
                        reset_num_timesteps=done == 0,
                    )
                exit_code = 0
            finally:
                recorder.file.close()
                mirror.close(exit_code)
    with replacing(out_dir / "model.zip") as temporary:
        model.save(temporary)
    return model


def _refuse_other_arguments(old: dict[str, Any], new: dict[str, Any], out_dir: Path) -> None:
    for name in new:
        if old.get(name) != new[name]:
            raise InputError(f"{out_dir}/checkpoint.pt: made with {name}={old.get(name)}, not with {name}={new[name]}")


class _Recorder(BaseCallback):
    """Writes a ProgressRow for each rollout and its update, and checkpoints between updates."""

    def __init__(
        self,
        out_dir: Path,
        arguments: dict[str, Any],
        resume_at: int,
        mirror: WandbMirror,
        on_progress: Callable[[ProgressRow], None] | None,
    ) -> None:
        super().__init__()
        self.file = ProgressFile(out_dir / "progress.csv", resume_at)
        self.checkpoint_path = out_dir / "checkpoint.pt"
        self.arguments = arguments
        self.mirror = mirror
        self.on_progress = on_progress
        self._earlier_s = self.file.wall_s
        self._start_s = self._rollout_start_s = self._saved_s = time.monotonic()
        self._reward_total = math.nan  # nan: there is no rollout to write

    def _on_rollout_start(self) -> None:
        self._write()
        if time.monotonic() - self._saved_s >= CHECKPOINT_EVERY_S:
            self._save()
        self._rollout_start_s = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._reward_total = self.training_env.take_reward_total()

    def _on_training_end(self) -> None:
        self._write()
        self._save()

    def _save(self) -> None:
        checkpoint.save(self.checkpoint_path, self.model, self.arguments)
        self._saved_s = time.monotonic()

    def _write(self) -> None:
        """Write the row of the last rollout, whose update has finished by now."""
        if math.isnan(self._reward_total):
            return
        now_s = time.monotonic()
        figures = self.model.logger.name_to_value
        decisions = self.model.n_steps * self.model.n_envs
        costs = [-episode["r"] for episode in self.model.ep_info_buffer]
        row = ProgressRow(
            timesteps=self.model.num_timesteps,
            wall_s=self._earlier_s + now_s - self._start_s,
            steps_per_s=decisions / (now_s - self._rollout_start_s),
            reward_per_decision=self._reward_total / decisions,
            episode_cost=float(np.mean(costs)) if costs else math.nan,
            episodes=len(costs),
            explained_variance=float(figures["train/explained_variance"]),
            entropy=self.model.policy.mean_entropy,
            approx_kl=float(figures["train/approx_kl"]),
            clip_fraction=float(figures["train/clip_fraction"]),
            value_loss=float(figures["train/value_loss"]),
        )
        self._reward_total = math.nan
        self.file.write(row)
        self.mirror.write(row)
        if self.on_progress is not None:
            self.on_progress(row)
