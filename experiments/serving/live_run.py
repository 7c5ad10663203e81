"""Plays a workload in real time through a router in front of mock workers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agents.placement_policy import LearnedPolicy
from envs.cluster import ClusterConfig, Policy, RunResult
from envs.cluster.request import request_of
from envs.garbage_collection import rare_garbage_collection
from envs.workload import Workload
from experiments.analysis.request_table import DRAIN_S
from experiments.mock_stack.dynamo_client import connect, dynamo_environment, follow_steps
from experiments.mock_stack.mock_workers import Timing, mock_workers
from experiments.mock_stack.model_folder import VOCABULARY
from experiments.mock_stack.worker import Tokens
from experiments.serving.live_clock import LiveClock
from experiments.serving.live_router import LiveRouter
from experiments.serving.recorder import Recorder

SUBSCRIBED_S = 0.5
"""Real time that a subscription to step reports takes to stand."""


def play_live(
    workload: Workload, policy: Policy, config: ClusterConfig, folder: Path, timing: Timing, speedup: float
) -> RunResult:
    """Start workers, send them a workload in real time under a policy, and end them.

    Args:
        workload: the requests.
        policy: places them.
        config: the cluster.
        folder: an empty folder for files of the workers.
        timing: see `mock_workers`.
        speedup: seconds of the workload in a real one.
    """
    with in_use(policy), mock_workers(config, folder, timing, speedup) as workers, dynamo_environment(folder):
        return asyncio.run(_play(workload, policy, config, speedup, len(workers)))


@contextmanager
def in_use(policy: Policy) -> Iterator[None]:
    """Prepare a policy for a router that must answer at once.

    A learned policy puts off what can wait, and the garbage collector runs rarely.
    """
    if isinstance(policy, LearnedPolicy):
        policy.put_in_use()
    with rare_garbage_collection():
        yield


async def _play(workload: Workload, policy: Policy, config: ClusterConfig, speedup: float, workers: int) -> RunResult:
    rng = np.random.default_rng(0)
    runtime, clients = await connect(workers)
    clock, recorder = LiveClock(speedup), Recorder()
    shared = random_prompt(rng, int(workload.prompt_tokens.max()))
    router = LiveRouter(config, policy, clients, clock, shared, recorder)
    for node in range(len(clients)):
        follow_steps(runtime, node, router.stepped)
    await asyncio.sleep(SUBSCRIBED_S)
    await router.warm()

    rows = workload.rows()
    prompts = [random_prompt(rng, row[1]) for row in rows]
    clock.start()

    serving = []
    for number, row in enumerate(rows):
        await clock.sleep_until(row[0])
        serving.append(asyncio.create_task(router.serve(request_of(number, row), prompts[number], _nobody)))
    await asyncio.wait(serving, timeout=DRAIN_S / speedup)
    result = recorder.result(router.view.nodes, router.lifecycle, clock.now_s)
    for task in serving:
        if task.done():
            task.result()
        task.cancel()
    runtime.shutdown()
    return result


def _nobody(_: Tokens) -> None:
    """Take the tokens of a request."""


def random_prompt(rng: np.random.Generator, tokens: int) -> list[int]:
    """Random tokens, none of which is special, so that no two prompts share a block."""
    found: list[int] = rng.integers(3, VOCABULARY, tokens).tolist()
    return found
