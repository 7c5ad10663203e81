"""The ONNX model scores choices as NumPy and torch do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

import onnx
from onnx.reference import ReferenceEvaluator

from agents.layout import MASKED_SCORE
from agents.numpy_policy import NumpyActor
from agents.onnx_export import write_onnx
from agents.placement_network import PlacementNetwork
from agents.policy_file import load_policy
from policies.registry import TRAINED

FILE = load_policy(TRAINED["ppo"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ReferenceEvaluator:
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(path, FILE.weights, FILE.layout)
    return ReferenceEvaluator(str(path))


def torch_scores(observation: dict[str, np.ndarray]) -> np.ndarray:
    network = PlacementNetwork(FILE.layout.sizes, hidden=FILE.weights["second.bias"].shape[0])
    network.actor.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in FILE.weights.items()})
    with torch.no_grad():
        batch = {name: torch.from_numpy(value)[None] for name, value in observation.items()}
        found: np.ndarray = network.forward_actor(batch)[0].numpy()
    return found


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_numpy_and_torch(model: ReferenceEvaluator, choices: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = FILE.layout.sizes
    observation = {
        "request": rng.random(sizes.request, dtype=np.float32),
        "global": rng.random(sizes.global_, dtype=np.float32),
        "choices": rng.random((choices, sizes.choice), dtype=np.float32),
        "action_mask": (rng.random(choices) < 0.8).astype(np.float32),
    }
    observation["choices"][rng.random(choices) < 0.2] = 0.0
    (scores,) = model.run(None, observation)
    expected = NumpyActor(FILE.weights).scores(observation)
    allowed = observation["action_mask"] > 0
    np.testing.assert_allclose(scores[allowed], expected[allowed], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores[allowed], torch_scores(observation)[allowed], rtol=1e-4, atol=1e-4)
    assert (scores[~allowed] == np.float32(MASKED_SCORE)).all()


def test_the_model_names_its_features(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    write_onnx(path, FILE.weights, FILE.layout)
    known = {one.key: one.value for one in onnx.load(str(path)).metadata_props}
    assert known["choices"].split() == list(FILE.layout.choices)
    assert known["choice_set"] == "pairs"
    assert path.stat().st_size < 200_000
