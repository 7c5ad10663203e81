"""Checkpoints: what a killed training run needs to go on, in one file that replaces the one before it.

The file holds tensors and plain values only and is read with `weights_only=True`, so reading one runs no
code. The episodes under way are not in it: a resumed run starts the ones that come next, so it is a valid run
of the same arguments but not step for step the run that was killed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO

from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing


def save(path: Path, model: PPO, arguments: dict[str, Any]) -> None:
    """Write the checkpoint of `model`, whole or not at all.

    Args:
        path: file to write or replace.
        model: the learner.
        arguments: the run's arguments as plain values; `read` gives them back.
    """
    # stable-baselines3 shuffles its batches with NumPy's global generator.
    numpy_random: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    numpy_random["state"]["key"] = torch.as_tensor(numpy_random["state"]["key"].astype(np.int64))
    state = {
        "arguments": arguments,
        "timesteps": model.num_timesteps,
        "episodes": _next_episodes(model),
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "torch_random": torch.get_rng_state(),
        "numpy_random": numpy_random,
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _next_episodes(model: PPO) -> list[int]:
    """Number of the episode that each environment is to start with: one begun and not yet played is not left out."""
    begun: list[int] = model.get_env().episodes
    return [int(number) - int(fresh) for number, fresh in zip(begun, model._last_episode_starts, strict=True)]


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        InputError: the file is missing, damaged or no checkpoint.
    """
    try:
        state = torch.load(path, weights_only=True)
        return {**state, "timesteps": int(state["timesteps"])}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no checkpoint there to resume from") from error
    except Exception as error:  # torch lets through whatever its reader stumbles on
        raise InputError(f"{path}: not a training checkpoint, or a damaged one") from error


def restore(state: dict[str, Any], model: PPO) -> None:
    """Put a checkpoint's weights, optimizer, count and random states into a model of the same arguments."""
    model.policy.load_state_dict(state["policy"])
    model.policy.optimizer.load_state_dict(state["optimizer"])
    model.num_timesteps = state["timesteps"]
    torch.set_rng_state(state["torch_random"])
    numpy_random = state["numpy_random"]
    numpy_random["state"]["key"] = numpy_random["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_random)  # noqa: NPY002
