"""Episodes that the members of a portfolio have played: what a selection is fitted to, and the file of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.array_file import read_arrays, write_arrays
from agents.context import CONTEXT
from hardware_profiles import InputError

FORMAT = "prefill-placement-selection-episodes/2"
"""Changes whenever older readers cannot use new files."""


class SelectionEpisodes(NamedTuple):
    """Episodes that all members of a portfolio have played.

    Attributes:
        members: names of the members, M of them.
        contexts: (E, N, K) float32; N contexts of each of E episodes, see `agents.context`.
        regret: (E, M) float32; the regret of each member on each episode, see `agents.regret`.
        missed: (E, M) float32; the share of requests that missed an SLO.
    """

    members: tuple[str, ...]
    contexts: np.ndarray
    regret: np.ndarray
    missed: np.ndarray

    def of(self, members: Sequence[str]) -> "SelectionEpisodes":
        """The same episodes with the results of these members only."""
        kept = [self.members.index(name) for name in members]
        return self._replace(members=tuple(members), regret=self.regret[:, kept], missed=self.missed[:, kept])


def joined(parts: Sequence[SelectionEpisodes], members: Sequence[str]) -> SelectionEpisodes:
    """The episodes of several runs, with the results of members that all of them have."""
    of_members = [one.of(members) for one in parts]
    return SelectionEpisodes(
        tuple(members),
        np.concatenate([one.contexts for one in of_members]),
        np.concatenate([one.regret for one in of_members]),
        np.concatenate([one.missed for one in of_members]),
    )


def write_episodes(path: Path, episodes: SelectionEpisodes) -> None:
    """Write a file of episodes, atomically."""
    metadata = {"format": FORMAT, "members": episodes.members, "context": CONTEXT}
    arrays = {"contexts": episodes.contexts, "regret": episodes.regret, "missed": episodes.missed}
    write_arrays(path, metadata, {name: array.astype(np.float32) for name, array in arrays.items()})


def read_episodes(path: Path) -> SelectionEpisodes:
    """Read a file of episodes.

    Raises:
        InputError: the file is missing, damaged or not one of episodes; the message names the file and the reason.
    """
    try:
        metadata, arrays = read_arrays(path)
        written, context = metadata["format"], metadata["context"]
        if written != FORMAT:
            raise InputError(f"{path}: format {written!r}, but this version reads {FORMAT!r}")
        found = SelectionEpisodes(tuple(metadata["members"]), arrays["contexts"], arrays["regret"], arrays["missed"])
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file of episodes") from error
    except Exception as error:  # the readers of zip, NumPy and JSON raise exceptions of many types
        raise InputError(f"{path}: not the episodes.npz of a training run, or a damaged one") from error
    if context != list(CONTEXT):
        raise InputError(f"{path}: its contexts have other parts than those of this version; play the episodes again")
    results = len(found.contexts), len(found.members)
    if found.contexts.shape[2:] != (len(CONTEXT),) or not found.regret.shape == found.missed.shape == results:
        shapes = f"contexts {found.contexts.shape}, regrets {found.regret.shape} and misses {found.missed.shape}"
        raise InputError(f"{path}: {shapes} do not fit")
    return found
