"""Trained policies that ship with the project: their names, files and knobs."""

import zipfile

import numpy as np
import pytest

import policies
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from hardware_profiles import InputError, load_profile
from policies import PolicySpec
from policies.registry import TRAINED

CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))


@pytest.mark.parametrize("name", TRAINED)
def test_a_shipped_file_is_small_and_has_arrays_alone(name: str) -> None:
    path = TRAINED[name]
    assert path.stat().st_size < 200_000
    with zipfile.ZipFile(path) as archive:
        assert all(member.endswith(".npy") for member in archive.namelist())
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[member].dtype != object for member in arrays.files)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("shape", ["2P2D", "3P1D", "1P3D", "8P8D"])
def test_a_shipped_policy_places_requests_on_any_shape(name: str, shape: str) -> None:
    config = ClusterConfig(load_profile("a100-qwen3-8b"), shape=shape)
    result = simulate(generate("burst", rate_rps=8.0, requests=60, seed=1), policies.make(name), config)
    assert all(record.last_token_s > record.arrival_s for record in result.records)


def test_a_shipped_name_takes_labels_and_the_knob_of_the_guard() -> None:
    plain, unguarded = PolicySpec.parse("ppo"), PolicySpec.parse("free=ppo:guard=false")
    assert (plain.label, plain.text, plain.learned) == ("ppo", "ppo", True)
    assert (unguarded.label, unguarded.text) == ("free", "ppo:guard=false")
    assert PolicySpec.parse(str(unguarded)) == unguarded
    unguarded.make()
    with pytest.raises(InputError, match="has no knob 'gard'; its knobs: guard"):
        policies.make("ppo:gard=false")


def test_a_misspelt_shipped_name_is_suggested() -> None:
    with pytest.raises(InputError, match="did you mean 'ppo'"):
        policies.make("pppo")
