"""The vector environment equals Gymnasium's vector of single environments, to the byte."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.cluster import Disturbance
from envs.observation import encode, encode_batch
from envs.placement_env import PrefillPlacementEnv
from envs.vector_env import PlacementVectorEnv
from tests.toy import toy_profile

ID = "envs:PrefillPlacement-v1"
TOY: dict[str, Any] = {"profile": toy_profile(), "rate_rps": 14.0, "horizon_requests": 9}
LOSSES = (Disturbance(0.2, "loss", 0), Disturbance(0.4, "loss", 3))
VARIANTS: dict[str, dict[str, Any]] = {
    "default": TOY,
    "deflection, fixed step budget": TOY | {"cluster": "1P3D", "choices": "deflection", "step_budget": "fixed"},
    "lost nodes": TOY | {"cluster_options": {"disturbances": LOSSES}, "horizon_requests": 12},
    "running start": TOY | {"start": "running", "warm_up_s": (0.2, 0.8), "miss_weight": 0.3, "tail_weight": 1.0},
    "shortlists": TOY | {"cluster": "6P5D", "rate_rps": 40.0},
    "horizon in seconds": TOY | {"horizon_requests": None, "horizon_s": 0.5},
}


def same(one: Any, other: Any) -> bool:
    """Whether two infos or observations are equal, arrays by their bytes."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and one.dtype == object:
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


def rows(observation: Any, rng: np.random.Generator) -> np.ndarray:
    """A random feasible row of each environment, and sometimes any row."""
    weights = rng.random(observation["action_mask"].shape) * (observation["action_mask"] + (rng.random() < 0.1))
    found: np.ndarray = weights.argmax(axis=1)
    return found


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS.keys())
def test_it_equals_a_vector_of_single_environments_to_the_byte(arguments: dict[str, Any], mode: AutoresetMode) -> None:
    batched = PlacementVectorEnv(3, mode, **arguments)
    apart = SyncVectorEnv([lambda: PrefillPlacementEnv(**arguments)] * 3, autoreset_mode=mode)
    assert batched.observation_space == apart.observation_space
    assert batched.action_space == apart.action_space
    assert batched.metadata == apart.metadata
    rng = np.random.default_rng(1)
    played, expected = batched.reset(seed=4), apart.reset(seed=4)
    assert all(same(a, b) for a, b in zip(played, expected, strict=True))
    ended = 0
    for _ in range(45):
        chosen = rows(played[0], rng)
        played, expected = batched.step(chosen), apart.step(chosen)  # type: ignore[assignment]
        assert all(same(a, b) for a, b in zip(played, expected, strict=True))
        ended += int(played[3].sum())  # type: ignore[misc]
    assert ended > 3


def test_disabled_autoreset_resets_by_mask() -> None:
    batched = PlacementVectorEnv(3, AutoresetMode.DISABLED, **TOY)
    apart = SyncVectorEnv([lambda: PrefillPlacementEnv(**TOY)] * 3, autoreset_mode=AutoresetMode.DISABLED)
    played, expected = batched.reset(seed=[7, 8, 9])[0], apart.reset(seed=[7, 8, 9])[0]
    rng = np.random.default_rng(2)
    for _ in range(9):
        chosen = rows(played, rng)
        played, _, _, truncations, _ = batched.step(chosen)
        expected, *_ = apart.step(chosen)
        assert same(played, expected)
    assert truncations.all()
    with pytest.raises(ValueError, match="episode of environment 0 has ended"):
        batched.step(chosen)
    mask = np.array([True, False, True])
    again = [env.reset(options={"reset_mask": mask.copy()}) for env in (batched, apart)]  # type: ignore[attr-defined]
    assert all(same(a, b) for a, b in zip(*again, strict=True))
    with pytest.raises(ValueError, match="environment 1"):
        batched.step(chosen)


def test_make_vec_creates_it() -> None:
    envs = gymnasium.make_vec(ID, num_envs=2, cluster="1P2D", rate_rps=6.0, horizon_requests=4)
    assert isinstance(envs.unwrapped, PlacementVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = envs.reset(seed=1)
    assert observation in envs.observation_space
    assert envs.unwrapped.action_masks().tolist() == observation["action_mask"].astype(bool).tolist()
    envs.close()


@pytest.mark.parametrize(
    "options",
    [
        {"reset_mask": np.zeros(2, dtype=bool)},
        {"reset_mask": np.ones(3, dtype=bool)},
        {"reset_mask": np.ones(2)},
        {"reset_mask": [True, True]},
    ],
)
def test_a_bad_reset_mask_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reset_mask"):
        PlacementVectorEnv(2, **TOY).reset(options=options)


def test_a_wrong_number_of_seeds_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        PlacementVectorEnv(2, **TOY).reset(seed=[1, 2, 3])


def test_its_arrays_are_new() -> None:
    envs = PlacementVectorEnv(2, **TOY)
    rng = np.random.default_rng(0)
    before, _ = envs.reset(seed=0)
    for _ in range(5):
        chosen = rows(before, rng)
        after, *_ = envs.step(chosen)
        for key, array in after.items():
            assert not np.shares_memory(array, before[key])
            before[key][...] = 0
        before = after


def test_it_renders_each_environment() -> None:
    envs = PlacementVectorEnv(2, render_mode="ansi", **TOY)
    envs.reset(seed=0)
    assert envs.render() == tuple(env.render() for env in envs.envs)
    assert PlacementVectorEnv(2, **TOY).render() is None


def test_a_batch_of_different_clusters_has_each_ones_observation() -> None:
    shapes = [("2P2D", "pairs"), ("1P3D", "pairs"), ("3P1D", "deflection"), ("6P6D", "deflection"), ("2P2D", "pairs")]
    envs = [PrefillPlacementEnv(**TOY | {"cluster": shape, "choices": choices}) for shape, choices in shapes]
    for seed, env in enumerate(envs):
        env.start(seed)
    batch = encode_batch([env.process.choices for env in envs], 16)
    for index, env in enumerate(envs):
        assert same({key: array[index] for key, array in batch.items()}, encode(env.process.choices, 16))
