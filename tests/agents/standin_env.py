"""A tiny environment with the spaces of envs:PrefillPlacement-v1, for tests of learning without a cluster."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from agents.episodes import TrainingSeeds
from agents.gym_vec_env import SteppedInTurn
from agents.ppo import PPOArguments

REQUEST, GLOBAL, CHOICE = 3, 2, 5


def observation_space(choices: int) -> spaces.Dict:
    def unit(*shape: int) -> spaces.Box:
        return spaces.Box(0.0, 1.0, shape, np.float32)

    return spaces.Dict(
        {
            "request": unit(REQUEST),
            "global": unit(GLOBAL),
            "choices": unit(choices, CHOICE),
            "action_mask": spaces.MultiBinary(choices),
        }
    )


class ShortestQueueEnv(gymnasium.Env[dict[str, np.ndarray], np.int64]):
    """Feature 0 of a choice is the request's wait there: the best action is the smallest allowed one.

    Times between decisions are exponential, the cost is the wait times that time, and decisions are independent.
    """

    def __init__(self, choices: int = 4, decisions: int = 32) -> None:
        self.observation_space = observation_space(choices)
        self.action_space = spaces.Discrete(choices)
        self.choices, self.decisions = choices, decisions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        super().reset(seed=seed)
        self.left = self.decisions
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask[action], "a masked choice was chosen"
        dt_s = float(self.np_random.exponential(0.1))
        reward = -10.0 * dt_s * float(self.features[action, 0])
        self.left -= 1
        return self._observe(), reward, False, self.left == 0, {"dt_s": dt_s}

    def _observe(self) -> dict[str, np.ndarray]:
        self.features = self.np_random.random((self.choices, CHOICE), dtype=np.float32)
        self.mask = self.np_random.random(self.choices) < 0.7
        self.mask[self.np_random.integers(self.choices)] = True
        return {
            "request": self.np_random.random(REQUEST, dtype=np.float32),
            "global": self.np_random.random(GLOBAL, dtype=np.float32),
            "choices": self.features.copy(),
            "action_mask": self.mask.astype(np.int8),
        }


def in_turn(
    arguments: PPOArguments, make_env: Callable[[int], gymnasium.Env[Any, Any]] = lambda _: ShortestQueueEnv()
) -> Callable[[Sequence[int]], SteppedInTurn]:
    """Return a function that makes the environments of a training run; `make_env` makes one per stream."""
    seeds = TrainingSeeds(arguments.seed, arguments.rollouts_per_arrivals)
    return lambda first: SteppedInTurn(make_env, seeds, first)


class TimesItself(SteppedInTurn):
    """Environments with times as an attribute, and one empty info for all steps that do not end an episode."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dt_s = np.zeros(self.num_envs, np.float32)
        self._nothing: dict[str, Any] = {}

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = super().step_wait()
        self.dt_s = np.array([info.pop("dt_s") for info in infos], np.float32)
        return (
            observations,
            rewards,
            dones,
            [info if done else self._nothing for info, done in zip(infos, dones, strict=True)],
        )
