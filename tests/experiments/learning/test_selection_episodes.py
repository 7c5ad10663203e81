"""The file of the episodes that a selection is fitted to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.context import CONTEXT
from experiments.learning.selection_episodes import (
    FORMAT,
    SelectionEpisodes,
    joined,
    read_episodes,
    write_episodes,
)
from hardware_profiles import InputError


def drawn(members: tuple[str, ...], count: int) -> SelectionEpisodes:
    """Episodes with random contexts and results."""
    rng = np.random.default_rng(count)
    contexts = rng.uniform(size=(count, 3, len(CONTEXT))).astype(np.float32)
    regret, missed = rng.uniform(size=(2, count, len(members))).astype(np.float32)
    return SelectionEpisodes(members, contexts, regret, missed)


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    episodes = drawn(("network", "lmetric"), 5)
    write_episodes(tmp_path / "episodes.npz", episodes)
    found = read_episodes(tmp_path / "episodes.npz")
    assert found.members == episodes.members
    assert np.array_equal(found.contexts, episodes.contexts)
    assert np.array_equal(found.regret, episodes.regret)
    assert np.array_equal(found.missed, episodes.missed)


def test_runs_are_joined_by_the_names_of_members() -> None:
    first, second = drawn(("network", "lmetric", "static"), 5), drawn(("static", "network"), 7)
    both = joined([first, second], ("network", "static"))
    assert both.members == ("network", "static")
    assert np.array_equal(both.contexts, np.concatenate([first.contexts, second.contexts]))
    assert np.array_equal(both.regret, np.concatenate([first.regret[:, [0, 2]], second.regret[:, [1, 0]]]))
    assert np.array_equal(both.missed, np.concatenate([first.missed[:, [0, 2]], second.missed[:, [1, 0]]]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "other/1"}, f"format 'other/1', but this version reads '{FORMAT}'"),
        ({"context": ["ttft_slo_s"]}, "its contexts have other parts than those of this version"),
        ({"members": ["network"]}, "contexts .* regrets .* and misses .* do not fit"),
        ({"members": None}, "not the episodes.npz of a training run"),
    ],
)
def test_a_file_that_does_not_fit_is_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "episodes.npz"
    write_episodes(path, drawn(("network", "lmetric"), 5))
    with np.load(path) as archive:
        arrays = dict(archive)
    metadata = json.loads(str(arrays.pop("metadata"))) | changed
    np.savez(path, allow_pickle=False, metadata=np.array(json.dumps(metadata)), **arrays)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_episodes(path)


def test_a_file_that_is_absent_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.npz: no such file of episodes"):
        read_episodes(tmp_path / "absent.npz")
    path = tmp_path / "episodes.npz"
    write_episodes(path, drawn(("network", "lmetric"), 5))
    whole = path.read_bytes()
    for size in (0, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="or a damaged one"):
            read_episodes(path)
    np.savez(path, metadata=np.array("{}"))
    with pytest.raises(InputError, match="or a damaged one"):
        read_episodes(path)
