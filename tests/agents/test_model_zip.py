"""Models of stable-baselines3, saved to a file, are placement policies next to the rules."""

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO

import envs  # noqa: F401 - registers the environment
import policies
from agents.model_zip import StableBaselinesPolicy
from envs.choices import Choices, ChoiceSet
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from envs.observation import encode
from hardware_profiles import InputError
from policies import PolicySpec
from tests.policies.states import HandMade, asks
from tests.refusal import refused
from tests.toy import toy_profile

pytestmark = pytest.mark.slow
HORIZON = 40


CHOICES: dict[str, ChoiceSet] = {"ppo": "deflection", "dqn": "pairs"}
"""The set of choices that each model was trained on."""


def environment(model: str) -> gymnasium.Env[Any, Any]:
    settings: dict[str, Any] = {"workload": "burst", "rate_rps": 8.0, "horizon_requests": HORIZON}
    return gymnasium.make("PrefillPlacement-v1", choices=CHOICES[model], **settings)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A PPO and a DQN that were trained for a few steps, as files."""
    folder = tmp_path_factory.mktemp("models")
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [16]}, "seed": 1, "device": "cpu"}
    trained = {
        "ppo": PPO("MultiInputPolicy", environment("ppo"), n_steps=32, batch_size=32, n_epochs=1, **small).learn(64),
        "dqn": DQN("MultiInputPolicy", environment("dqn"), buffer_size=100, learning_starts=10, **small).learn(40),
    }
    for name, model in trained.items():
        model.save(folder / f"{name}.zip")
    return {name: folder / f"{name}.zip" for name in trained}


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_a_saved_model_is_a_policy_by_its_file(models: dict[str, Path], name: str) -> None:
    spec = PolicySpec.parse(f"mine={models[name]}")
    assert (spec.label, spec.learned) == ("mine", True)
    policy = spec.make()
    assert isinstance(policy, StableBaselinesPolicy)
    assert policy.name == name
    workload = generate("burst", rate_rps=8.0, requests=60, seed=3)
    config = ClusterConfig(toy_profile())
    runs = [simulate(workload, policies.make(str(models[name])), config) for _ in range(2)]
    assert len(runs[0].records) == 60
    assert runs[0].records == runs[1].records  # nothing is drawn at random
    assert not np.isnan([record.last_token_s for record in runs[0].records]).any()


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_the_choice_is_the_feasible_one_that_the_model_likes_best(models: dict[str, Path], name: str) -> None:
    policy = StableBaselinesPolicy(models[name])
    model = {"ppo": PPO, "dqn": DQN}[name].load(models[name], device="cpu")
    for tokens in (10, 700, 3000, 9000):
        request, view = asks(tokens), HandMade("2P2D")
        choices = Choices.of(request, view, CHOICES[name])
        observation = encode(choices)
        mask = np.asarray(observation["action_mask"], dtype=bool)
        placed = policy.place(request, view)
        assert placed in [choices.placement(index) for index in np.flatnonzero(mask).tolist()]
        liked = int(model.predict(observation, deterministic=True)[0])
        if mask[liked]:
            assert placed == choices.placement(liked)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_a_cluster_of_another_shape_is_invalid_input(models: dict[str, Path], name: str) -> None:
    workload = generate("burst", rate_rps=8.0, requests=5, seed=3)
    with refused("was trained on observations of another shape", str(models[name])):
        simulate(workload, StableBaselinesPolicy(models[name]), ClusterConfig(toy_profile(), shape="3P3D"))


@pytest.mark.parametrize("content", ["nothing", "text", "an empty archive", "another archive", "cut off"])
def test_a_file_that_is_no_model_is_invalid_input(content: str, models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    if content == "text":
        path.write_text("not a model")
    elif content == "nothing":
        path.write_bytes(b"")
    elif content == "cut off":
        path.write_bytes(models["ppo"].read_bytes()[:2000])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            if content == "another archive":
                archive.writestr("data", json.dumps({"policy": "none"}))
    with pytest.raises(InputError, match="not a model of stable-baselines3 that can be loaded") as error:
        policies.make(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.zip: no such file"):
        policies.make(str(tmp_path / "nowhere.zip"))
