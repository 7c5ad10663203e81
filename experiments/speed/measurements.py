"""The measurements of `python -m experiments.bench`; each function is one of them, in this process."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import simpy
from stable_baselines3.common.vec_env import VecEnv

import policies
from agents.episodes import TrainingSeeds
from agents.gym_vec_env import MakeVecEnv
from agents.ppo import PPOArguments
from agents.training import train
from agents.vec_env import PlacementVecEnv
from envs.arrivals import Mmpp
from envs.cluster import Cluster, ClusterConfig, Placement, Request, simulate
from envs.garbage_collection import rare_garbage_collection
from envs.placement_env import PrefillPlacementEnv
from envs.workload import Workload

ENV = "envs:PrefillPlacement-v1"

_CHAINS = 8
_VECTOR = 32


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much each measurement does.

    Attributes:
        requests: requests that are simulated.
        decided: the first of them, which each policy places for `decision_us`.
        events: events of bare SimPy.
        steps: steps of one environment.
        vector_steps: steps of each of 32 environments.
        rollouts: rollouts of PPO.
    """

    requests: int = 6_000
    decided: int = 3_000
    events: int = 200_000
    steps: int = 3_000
    vector_steps: int = 500
    rollouts: int = 3


QUICK = Work(requests=600, decided=100, events=50_000, steps=300, vector_steps=30, rollouts=1)
"""Enough to see orders of magnitude."""


def simpy_events_per_s(events: int) -> float:
    """Bare SimPy: timeouts whose callback sets the next timeout."""
    env = simpy.Environment()
    left = events

    def fire(_: simpy.Event) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            timeout = env.timeout(1.0)
            assert timeout.callbacks is not None
            timeout.callbacks.append(fire)

    for _ in range(_CHAINS):
        timeout = env.timeout(1.0)
        assert timeout.callbacks is not None
        timeout.callbacks.append(fire)
    began = perf_counter()
    env.run()
    return (events + _CHAINS) / (perf_counter() - began)


def conversation(requests: int) -> Workload:
    """Generated requests like the Azure conversation trace at three times its rate, so that no file is needed.

    Arrivals: the two-state MMPP fitted to it, 4.62 and 7.01 /s with sojourns of 119 and 74 s, time
    compressed by 3. Lengths: lognormals through its medians and 95th percentiles (1020 and 4083, 129 and 451 tokens).
    """
    streams = [np.random.default_rng(seed) for seed in np.random.SeedSequence(20231116).spawn(4)]
    arrival_s = Mmpp((4.62, 7.01), (119.0, 74.0)).times_s(requests, streams[0], streams[1]) / 3.0

    def lengths(rng: np.random.Generator, median: float, p95: float, cap: int) -> np.ndarray:
        spread = np.log(p95 / median) / 1.645
        return np.clip(rng.lognormal(np.log(median), spread, requests), 1, cap).astype(np.int64)

    return Workload.of(
        arrival_s,
        lengths(streams[2], 1020, 4083, 14_050),
        lengths(streams[3], 129, 451, 1_000),
        label="like Azure conversation, time compressed by 3",
    )


def requests_per_s(workload: Workload, policy: str, config: ClusterConfig) -> float:
    """Requests of `workload` simulated per second under a policy."""
    began = perf_counter()
    simulate(workload, policies.make(policy), config)
    return len(workload) / (perf_counter() - began)


@rare_garbage_collection()
def env_steps_per_s(steps: int, **arguments: Any) -> float:
    """Steps per second of the environment, resets included, actions drawn from the mask; `arguments` are the env's."""
    env = gymnasium.make(ENV, **arguments).unwrapped
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    began = perf_counter()
    for _ in range(steps):
        allowed = observation["action_mask"].nonzero()[0]
        observation, _, _, truncated, _ = env.step(allowed[int(rng.random() * len(allowed))])
        if truncated:
            observation, _ = env.reset()
    return steps / (perf_counter() - began)


@rare_garbage_collection()
def vector_env_steps_per_s(steps: int, **arguments: Any) -> float:
    """Steps per second of 32 environments in one process, all of them together."""
    envs = gymnasium.make_vec(ENV, num_envs=_VECTOR, **arguments)
    rng = np.random.default_rng(0)
    observation, _ = envs.reset(seed=0)
    shape = observation["action_mask"].shape
    began = perf_counter()
    for _ in range(steps):
        observation, *_ = envs.step((rng.random(shape) * observation["action_mask"]).argmax(axis=1))
    return _VECTOR * steps / (perf_counter() - began)


class _Free(VecEnv):
    """Environments with the spaces of a real one and steps that cost nothing: the ceiling of PPO's speed."""

    def __init__(self, like: PrefillPlacementEnv, first_episodes: Sequence[int]) -> None:
        count = len(first_episodes)
        self.render_mode = None
        self.episodes = list(first_episodes)
        self.dt_s = np.full(count, 0.1, dtype=np.float32)
        one, _ = like.reset(seed=0)
        self._observation = {key: np.repeat(array[None], count, axis=0) for key, array in one.items()}
        super().__init__(count, like.observation_space, like.action_space)

    def reset(self) -> Any:
        return self._observation

    def step_async(self, actions: np.ndarray) -> None:
        pass

    def step_wait(self) -> Any:
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        return self._observation, rewards, np.zeros(self.num_envs, dtype=bool), [{} for _ in self.episodes]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False for _ in self._get_indices(indices)]


def ppo_steps_per_s(rollouts: int, **arguments: Any) -> float:
    """Decisions per second in PPO's training with default arguments, in the best of its rollouts and updates."""
    seeds = TrainingSeeds(0, PPOArguments().rollouts_per_arrivals)
    processes = min(2, os.cpu_count() or 1)

    def make(first_episodes: Sequence[int]) -> VecEnv:
        envs = [PrefillPlacementEnv(**arguments) for _ in first_episodes]
        return PlacementVecEnv(envs, seeds, first_episodes, processes=processes)

    return _trained_per_s(make, rollouts)


def ppo_ceiling_steps_per_s(rollouts: int, **arguments: Any) -> float:
    """The same on environments whose steps are free."""
    return _trained_per_s(lambda first_episodes: _Free(PrefillPlacementEnv(**arguments), first_episodes), rollouts)


def _trained_per_s(make: MakeVecEnv, rollouts: int) -> float:
    arguments = PPOArguments()
    decisions = rollouts * arguments.n_envs * arguments.n_steps
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            make,
            PPOArguments(timesteps=decisions),
            Path(folder),
            wandb_mode="disabled",
            on_progress=lambda row: rates.append(row.steps_per_s),
        )
    return max(rates)


def copy_s(config: ClusterConfig, in_flight: int = 200) -> float:
    """Seconds that copying a cluster with `in_flight` unfinished requests takes."""
    cluster = Cluster(config, lambda _: None)
    workload = conversation(in_flight)
    nodes = len(cluster.topology.prefill_nodes)
    for number in range(in_flight):
        arrival_s = 0.02 * number
        cluster.clock.advance_to(arrival_s)
        seq = Request(number, arrival_s, int(workload.prompt_tokens[number]), 100_000, 2.0, 0.1)
        cluster.submit(seq, Placement(number % nodes, nodes + number % (cluster.topology.nodes - nodes)))
    cluster.clock.advance_to(10.0)
    assert len(cluster.lifecycle.in_flight) == in_flight
    began = perf_counter()
    cluster.copy(lambda _: None)
    return perf_counter() - began


def decision_us(workload: Workload, config: ClusterConfig) -> dict[str, dict[str, float]]:
    """p50 and p99 of the wall time of a decision, microseconds, for each registered policy."""
    found = {}
    for name in policies.names():
        taken = simulate(workload, policies.make(name), config, time_decisions=True).decision_s
        p50, p99 = np.percentile(taken, [50, 99]) * 1e6
        found[name] = {"p50": float(p50), "p99": float(p99)}
    return found
