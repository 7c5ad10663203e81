"""Checkpoints: the state from which an interrupted training run resumes, in one file that each save replaces.

The file contains only tensors and plain values and is read with `weights_only=True`, so that reading it runs no code.
It does not contain the episodes in progress: a resumed run starts the next ones. It is therefore a valid run with the
same arguments, but not identical to an uninterrupted run.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO

from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing


def save(path: Path, model: PPO, arguments: dict[str, Any]) -> None:
    """Write the checkpoint of `model` atomically.

    Args:
        path: file to write or replace.
        model: the learner.
        arguments: the run's arguments as plain values, which `read` returns.
    """
    # stable-baselines3 shuffles batches with NumPy's global generator.
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
    """Number of the next episode of each environment; an episode that has begun but has no decision yet is next."""
    begun: list[int] = model.get_env().episodes
    return [int(number) - int(fresh) for number, fresh in zip(begun, model._last_episode_starts, strict=True)]


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint.
    """
    try:
        state = torch.load(path, weights_only=True)
        return {**state, "timesteps": int(state["timesteps"])}
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no checkpoint to resume from") from error
    except Exception as error:  # torch raises exceptions of many types
        raise InputError(f"{path}: not a training checkpoint, or a damaged one") from error


def restore(state: dict[str, Any], model: PPO) -> None:
    """Restore a checkpoint's weights, optimizer, count and random states in a model with the same arguments."""
    model.policy.load_state_dict(state["policy"])
    model.policy.optimizer.load_state_dict(state["optimizer"])
    model.num_timesteps = state["timesteps"]
    torch.set_rng_state(state["torch_random"])
    numpy_random = state["numpy_random"]
    numpy_random["state"]["key"] = numpy_random["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_random)  # noqa: NPY002
