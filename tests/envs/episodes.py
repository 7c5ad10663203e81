"""Episodes of the environment on the toy profile, for tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from envs.cluster import Placement, Request
from envs.features import CHOICE_FEATURES
from envs.observation import PREDICTED_TTFT_COLUMN, Observation
from envs.placement_env import PrefillPlacementEnv
from tests.toy import toy_profile

COLUMN = {feature.name: index for index, feature in enumerate(CHOICE_FEATURES)}

Rule = Callable[[Observation], int]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


def toy(**arguments: Any) -> PrefillPlacementEnv:
    """An environment on the toy profile."""
    defaults: dict[str, Any] = {"profile": toy_profile(), "rate_rps": 16.0}
    if "horizon_s" not in arguments:
        defaults["horizon_requests"] = 60
    return PrefillPlacementEnv(**(defaults | arguments))


def play(env: PrefillPlacementEnv, rule: Rule, seed: int | None = 0) -> list[Step]:
    """The steps of an episode."""
    observation, _ = env.reset(seed=seed)
    steps: list[Step] = []
    while not (steps and steps[-1][3]):
        steps.append(env.step(np.int64(rule(observation))))
        observation = steps[-1][0]
    return steps


def total(steps: list[Step]) -> float:
    """The sum of the rewards."""
    return sum(reward for _, reward, _, _, _ in steps)


@contextmanager
def submitted() -> Iterator[tuple[list[Request], list[Placement]]]:
    """Record the requests that environments place within the block, and their placements."""
    requests: list[Request] = []
    placements: list[Placement] = []
    step = PrefillPlacementEnv.step

    def keep(env: PrefillPlacementEnv, action: np.int64 | int) -> Any:
        asked = env.process.choices.request
        result = step(env, action)
        requests.append(Request(asked.number, *env.process.episode.requests[asked.number]))
        placements.append(env.process.placement)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefillPlacementEnv, "step", keep)
        yield requests, placements


# ---- rules ----------------------------------------------------------------------------------------------------------


def _least(observation: Observation, name: str, allowed: Any) -> int:
    return int(np.argmin(np.where(allowed, observation["choices"][:, COLUMN[name]], np.inf)))


def at_random(seed: int = 0) -> Rule:
    """A feasible row at random."""
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.choice(np.flatnonzero(observation["action_mask"])))


def soonest(observation: Observation) -> int:
    """The feasible row with the smallest predicted TTFT."""
    ttft_s = observation["choices"][:, PREDICTED_TTFT_COLUMN]
    return int(np.argmin(np.where(observation["action_mask"], ttft_s, np.inf)))


def never_deflect(observation: Observation) -> int:
    """Prefill on the prefill node with the fewest queued tokens, decode on a decode node."""
    choices = observation["choices"]
    roles = (choices[:, COLUMN["prefill_on_decode_node"]] == 0) & (choices[:, COLUMN["decode_on_decode_node"]] == 1)
    return _least(observation, "prefill_queued_tokens", roles)


def always_deflect(observation: Observation) -> int:
    """Both jobs on the decode node with the fewest requests."""
    choices = observation["choices"]
    roles = (choices[:, COLUMN["same_node"]] == 1) & (choices[:, COLUMN["decode_on_decode_node"]] == 1)
    return _least(observation, "decode_requests", roles)


def anywhere(observation: Observation) -> int:
    """A feasible row chosen without regard to its features."""
    feasible = np.flatnonzero(observation["action_mask"])
    return int(feasible[int(1e6 * observation["request"][0]) % len(feasible)])


RULES = [never_deflect, always_deflect, soonest, anywhere]
