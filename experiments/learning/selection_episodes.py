"""Episodes that the members of a portfolio have played: what a selection is fitted to, and the file of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.array_file import read_arrays, write_arrays
from agents.context import CONTEXT
from hardware_profiles import InputError

FORMAT = "prefill-placement-selection-episodes/1"
"""Changes whenever older readers cannot use new files."""


class SelectionEpisodes(NamedTuple):
    """Episodes that all members of a portfolio have played.

    Attributes:
        members: names of the members, M of them.
        contexts: (E, N, K) float32; N contexts of each of E episodes, see `agents.context`.
        regret: (E, M) float32; the regret of each member on each episode, see `agents.regret`.
    """

    members: tuple[str, ...]
    contexts: np.ndarray
    regret: np.ndarray

    def of(self, members: Sequence[str]) -> "SelectionEpisodes":
        """The same episodes with the results of these members only."""
        return self._replace(
            members=tuple(members), regret=self.regret[:, [self.members.index(name) for name in members]]
        )


def joined(parts: Sequence[SelectionEpisodes], members: Sequence[str]) -> SelectionEpisodes:
    """The episodes of several runs, with the results of members that all of them have."""
    return SelectionEpisodes(
        tuple(members),
        np.concatenate([one.contexts for one in parts]),
        np.concatenate([one.of(members).regret for one in parts]),
    )


def write_episodes(path: Path, episodes: SelectionEpisodes) -> None:
    """Write a file of episodes, atomically."""
    metadata = {"format": FORMAT, "members": episodes.members, "context": CONTEXT}
    arrays = {"contexts": episodes.contexts, "regret": episodes.regret}
    write_arrays(path, metadata, {name: array.astype(np.float32) for name, array in arrays.items()})


def read_episodes(path: Path) -> SelectionEpisodes:
    """Read a file of episodes.

    Raises:
        InputError: the file is missing, damaged or not one of episodes; the message names the file and the reason.
    """
    try:
        metadata, arrays = read_arrays(path)
        found = SelectionEpisodes(tuple(metadata["members"]), arrays["contexts"], arrays["regret"])
        written, context = metadata["format"], metadata["context"]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file of episodes") from error
    except Exception as error:  # the readers of zip, NumPy and JSON raise exceptions of many types
        raise InputError(f"{path}: not the episodes.npz of a training run, or a damaged one") from error
    if written != FORMAT:
        raise InputError(f"{path}: format {written!r}, but this version reads {FORMAT!r}")
    if context != list(CONTEXT):
        raise InputError(f"{path}: its contexts have other parts than those of this version; play the episodes again")
    count = len(found.contexts)
    if found.contexts.shape[2:] != (len(CONTEXT),) or found.regret.shape != (count, len(found.members)):
        raise InputError(f"{path}: contexts {found.contexts.shape} and regrets {found.regret.shape} do not fit")
    return found
