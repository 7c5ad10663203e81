"""Policy files: round trips, one-line errors for invalid files, and equality of NumPy and torch."""

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numpy_policy import NumpyActor
from agents.policy_file import load_policy, save_policy, weight_shapes
from hardware_profiles.errors import InputError
from tests.agents.observations import LAYOUT, SIZES, as_tensors, choice_counts, make_network, make_observation, seeds


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.npz"
    save_policy(path, make_network(seed=1), LAYOUT, {"timesteps": 1000, "skip_start": {0: -40.0}})
    return path


@settings(max_examples=60)
@given(seeds, choice_counts, st.integers(0, 2))
def test_numpy_gives_the_same_scores_as_torch(seed: int, choices: int, padding: int) -> None:
    network, observation = make_network(seed), make_observation(seed, choices)
    observation["choices"] = np.pad(observation["choices"], ((0, 0), (0, padding), (0, 0)))
    observation["action_mask"] = np.pad(observation["action_mask"], ((0, 0), (0, padding)))
    weights = {name: tensor.numpy(force=True) for name, tensor in network.actor.state_dict().items()}
    actor, single = NumpyActor(weights), {name: array[0] for name, array in observation.items()}
    with torch.no_grad():
        expected = network.forward_actor(as_tensors(observation))[0].numpy()
    scores = actor.scores(single)
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)
    assert scores.dtype == np.float32
    assert single["action_mask"][actor.act(single)]


def test_a_policy_file_round_trips(policy_file: Path) -> None:
    file = load_policy(policy_file)
    expected = make_network(seed=1).actor.state_dict()
    assert file.weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(file.weights[name], tensor.numpy())
    assert file.layout == LAYOUT
    assert file.training == {"timesteps": 1000, "skip_start": {"0": -40.0}}
    assert [path.name for path in policy_file.parent.iterdir()] == ["policy.npz"]


def test_writing_twice_gives_the_same_bytes(policy_file: Path) -> None:
    first = policy_file.read_bytes()
    save_policy(policy_file, make_network(seed=1), LAYOUT, {"timesteps": 1000, "skip_start": {0: -40.0}})
    assert policy_file.read_bytes() == first


def test_the_reader_knows_the_shapes_of_the_actor() -> None:
    shapes = {name: tuple(t.shape) for name, t in make_network(0, hidden=16).actor.state_dict().items()}
    assert weight_shapes(SIZES, hidden=16) == shapes


def test_a_network_cannot_be_saved_with_another_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout"):
        save_policy(tmp_path / "p.npz", make_network(0), LAYOUT._replace(request=("only",)), {})
    assert list(tmp_path.iterdir()) == []


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert_names(path, caught.value)
    return str(caught.value)


def assert_names(path: Path, error: InputError) -> None:
    assert str(path) in str(error)
    assert len(str(error).splitlines()) == 1


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["cut", "flip", "zero"]))
def test_a_damaged_file_is_an_error_or_reads_correctly(where: int, length: int, how: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.npz"
        save_policy(path, make_network(seed=1, hidden=4), LAYOUT, {})
        content, whole = bytearray(path.read_bytes()), load_policy(path)
        at = where % len(content)
        if how == "cut":
            del content[at:]
        elif how == "flip":
            content[at] ^= 1 << (length % 8)
        else:
            content[at : at + length % 64] = bytes(min(length % 64, len(content) - at))
        path.write_bytes(content)
        try:
            read = load_policy(path)
        except InputError as error:
            assert_names(path, error)
        else:  # bytes that no reader uses, such as a time stamp
            assert read.layout == whole.layout
            assert all(np.array_equal(read.weights[name], whole.weights[name]) for name in whole.weights)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a policy file ran code",)


def test_other_files_are_an_error_and_run_no_code(tmp_path: Path, policy_file: Path) -> None:
    path = tmp_path / "other"
    assert "no such" in refused(path)
    for content in (b"", b"text\nof two lines", pickle.dumps(Trap()), policy_file.read_bytes()[:200]):
        path.write_bytes(content)
        refused(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    refused(tmp_path / "array.npy")
    np.savez(tmp_path / "objects.npz", metadata=np.array([Trap()], dtype=object))
    refused(tmp_path / "objects.npz")
    refused(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    ["not json", "[]", '{"format": "prefill-placement-policy/2"}', '{"format": "other"}', '{"format": 1, "layout": 2}'],
)
def test_invalid_metadata_is_an_error(tmp_path: Path, metadata: str) -> None:
    np.savez(tmp_path / "p.npz", metadata=np.array(metadata))
    refused(tmp_path / "p.npz")


def rewrite(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, allow_pickle=False, **arrays)


def test_the_error_for_wrong_weights_names_them(policy_file: Path) -> None:
    whole = policy_file.read_bytes()
    changes = {
        "score.weight": np.zeros((2, 16), np.float32),
        "skip.weight": np.full((1, 5), np.nan, np.float32),
        "summary.bias": np.zeros(3, np.float32),
        "extra.weight": np.zeros(1, np.float32),
        "second": np.zeros((16, 16), np.float64),
    }
    for name, array in changes.items():
        policy_file.write_bytes(whole)
        rewrite(policy_file, **{name: array})
        assert "weight" in refused(policy_file)


def test_metadata_has_the_layout_by_name(policy_file: Path) -> None:
    with np.load(policy_file, allow_pickle=False) as archive:
        metadata = json.loads(str(archive["metadata"]))
    assert metadata["layout"]["choices"] == list(LAYOUT.choices)
