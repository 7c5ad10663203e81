"""The environment satisfies the laws of `tests.envs.conformance` for many combinations of its arguments."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.cluster import Disturbance
from envs.placement_env import PrefillPlacementEnv
from tests.envs.conformance import LAWS, Law, check_all
from tests.envs.shared_prefixes import conversations
from tests.toy import toy_profile

ID = "envs:PrefillPlacement-v1"
TOY = toy_profile()


def toy(**arguments: Any) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Environments on the toy profile with busy, short episodes."""
    arguments = {"profile": TOY, "rate_rps": 14.0, "horizon_requests": 24} | arguments
    return lambda: PrefillPlacementEnv(**arguments)


def made(**arguments: Any) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Environments made by name."""
    return lambda: gymnasium.make(ID, **{"rate_rps": 6.0, "horizon_requests": 24} | arguments)


LOSSES = {"disturbances": (Disturbance(0.6, "loss", 0), Disturbance(0.9, "loss", 3))}
FASTER_FIRST = {"node_speeds": (1.0, 0.7, 1.2, 0.5)}
RUNNING = {"start": "running", "warm_up_s": (0.5, 2.0)}
LARGE_ENOUGH = toy_profile(kv_capacity_tokens=30_000)

QUICK = {
    "1P1D": toy(cluster="1P1D"),
    "2P2D, fixed step budget": toy(step_budget="fixed", tbt_slo_s=0.012),
    "1P3D, deflection": toy(cluster="1P3D", choices="deflection"),
    "3P1D, deflection, fixed step budget": toy(cluster="3P1D", choices="deflection", step_budget="fixed"),
    "running start": toy(**RUNNING, warm_up=["static", "shortest-ttft", "random"]),
    "horizon in seconds": toy(horizon_s=2.0, horizon_requests=None),
    "lost nodes": toy(cluster_options=LOSSES),
    "prefix caches": toy(workload=conversations(3, 120), cluster_options={"prefix_cache": True}),
    "more rows than choices, strict": toy(rows=20, strict_actions=True),
    "by name, every tuple": made(rate_rps=(4.0, 8.0), tbt_slo_s=(0.05, 0.2), hosts=(0, 0, 1, 1), **RUNNING),
}

SLOW = {
    f"{cluster}, {choices}, {step_budget}, {start}, {horizon}": toy(
        cluster=cluster,
        choices=choices,
        step_budget=step_budget,
        rate_rps=7.0 * int(cluster[0]) + 4.0,
        **({"horizon_requests": 24} if horizon == "requests" else {"horizon_s": 1.5, "horizon_requests": None}),
        **(RUNNING if start == "running" else {}),
    )
    for number, (cluster, choices, step_budget) in enumerate(
        (cluster, choices, step_budget)
        for cluster in ("1P1D", "2P2D", "3P1D", "1P3D", "4P4D", "8P8D")
        for choices in ("pairs", "deflection")
        for step_budget in ("slo", "fixed")
    )
    for start, horizon in (("empty", "requests"), ("running", "seconds"))[number % 2 :: 2]
}
SLOW |= {
    "unequal nodes": toy(cluster_options=FASTER_FIRST),
    "lost nodes, deflection, fixed step budget": toy(
        cluster_options=LOSSES, choices="deflection", step_budget="fixed", rows=8
    ),
    "lost nodes of 8P8D": toy(cluster="8P8D", cluster_options=LOSSES, rate_rps=60.0, strict_actions=True),
    "little KV": toy(profile=LARGE_ENOUGH, workload="LPHD", rate_rps=30.0, cluster_options={"kv_watermark": 0.02}),
    "prefix caches, running start": toy(
        workload=conversations(4, 160), cluster_options={"prefix_cache": True}, **RUNNING
    ),
    "requests too long for a node": toy(profile=toy_profile(3_000), miss_weight=0.5),
    "KV streaming": toy(cluster_options={"kv_streaming": True}, step_budget="fixed"),
    "all weights": toy(tbt_weight=0.5, tail_weight=2.0, miss_weight=0.3, tbt_slo_s=0.011),
    "two SLO classes by name": made(slo_classes=[[0.5, 1.0, 0.05], [0.5, 4.0, 0.2, 0.5]]),
    "old reports": toy(report_age_s=1.0, step_budget="fixed"),
    "Mooncake's prompts": made(workload="mooncake-conv", rate_rps=1.0),
}

CASES = [pytest.param(make, id=name) for name, make in QUICK.items()]
CASES += [pytest.param(make, id=name, marks=pytest.mark.slow) for name, make in SLOW.items()]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", CASES)
def test_the_law_holds(make: Callable[[], gymnasium.Env[Any, Any]], law: Law) -> None:
    law(make, 3)


def test_check_all_checks_every_law_and_finds_a_violation() -> None:
    check_all(toy(horizon_requests=20))

    class Shared(PrefillPlacementEnv):
        """Returns the same array at each step."""

        def _observe(self) -> Any:
            self.kept: Any
            observation = super()._observe()
            self.kept = getattr(self, "kept", observation)
            self.kept["request"][:] = observation["request"]
            return observation | {"request": self.kept["request"]}

    with pytest.raises(AssertionError):
        check_all(lambda: Shared(profile=TOY, rate_rps=14.0, horizon_requests=20))


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_gymnasiums_checker_passes_when_rendering(render_mode: str) -> None:
    LAWS[0](made(render_mode=render_mode, horizon_requests=12), 0)


# ---- vectors of environments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["sync", pytest.param("async", marks=pytest.mark.slow), pytest.param(None, marks=pytest.mark.slow)]
)
def test_environments_in_a_vector_behave_as_if_alone(mode: str | None) -> None:
    arguments = {"cluster": "1P3D", "rate_rps": 6.0, "horizon_requests": 6}
    envs = gymnasium.make_vec(ID, num_envs=3, vectorization_mode=mode, **arguments)
    alone = [gymnasium.make(ID, **arguments) for _ in range(3)]
    observations, _ = envs.reset(seed=3)  # seeds 3, 4 and 5
    ones = [env.reset(seed=3 + i)[0] for i, env in enumerate(alone)]
    truncations = np.zeros(3, bool)
    for _ in range(6):
        assert all(np.array_equal(observations[key][i], one[key]) for i, one in enumerate(ones) for key in one)
        rows = [int(np.flatnonzero(one["action_mask"])[-1]) for one in ones]
        observations, rewards, terminations, truncations, _ = envs.step(np.array(rows))
        stepped = [env.step(row) for env, row in zip(alone, rows, strict=True)]
        ones = [one[0] for one in stepped]
        assert rewards.tolist() == [one[1] for one in stepped]
        assert not terminations.any()
    assert truncations.all()
    envs.close()


@pytest.mark.slow
@pytest.mark.parametrize("choices", ["pairs", "deflection"])
def test_maskable_ppo_of_sb3_contrib_trains_on_it(choices: str) -> None:
    sb3_contrib = pytest.importorskip("sb3_contrib")
    env = gymnasium.make(ID, choices=choices, rate_rps=6.0, horizon_requests=50, rows=18)
    model = sb3_contrib.MaskablePPO("MultiInputPolicy", env, n_steps=100, batch_size=50, n_epochs=1, seed=1)
    model.learn(200)
    observation, _ = env.reset(seed=1)
    for _ in range(50):
        action, _ = model.predict(observation, action_masks=env.unwrapped.action_masks())
        assert observation["action_mask"][action]
        observation, *_, info = env.step(action)
        assert not info["invalid_action"]
