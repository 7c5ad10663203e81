"""The router as a service: Dynamo's HTTP server in front, our router in the middle, mock workers behind."""

import asyncio
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import start_http_server

from envs.cluster import ClusterConfig, Policy, Topology, parse_shape
from envs.cluster.request import Request
from envs.slos import SloClass
from experiments.mock_stack.child_processes import children
from experiments.mock_stack.dynamo_client import connect, dynamo_environment, follow_steps
from experiments.mock_stack.dynamo_process import Frontend
from experiments.mock_stack.mock_workers import mock_workers
from experiments.mock_stack.model_folder import MODEL
from experiments.mock_stack.worker import WorkerLostError
from experiments.serving.live_clock import LiveClock
from experiments.serving.live_router import LiveRouter, RejectedError
from experiments.serving.live_run import SUBSCRIBED_S, in_use, random_prompt
from experiments.serving.service_metrics import SAMPLE_S, ServiceMetrics
from hardware_profiles import InputError

NAMESPACE = "front"
_LISTED_WITHIN_S = 30.0
_MOST_TOKENS = 128
"""Output tokens of a request that names no number."""


@dataclass(frozen=True)
class Service:
    """A router service on this machine.

    Attributes:
        config: the workers.
        policy: places the requests.
        slos: the SLOs of all requests.
        port, metrics_port: on the loopback interface.
        longest_prompt: tokens of the longest prompt that is accepted.
        alarm_s: see `ServiceMetrics`.
    """

    config: ClusterConfig
    policy: Policy
    slos: SloClass
    port: int
    metrics_port: int
    longest_prompt: int
    alarm_s: float

    def run(self, folder: Path, ready: Callable[[list[int]], None]) -> None:
        """Serve until SIGINT or SIGTERM.

        Args:
            folder: an empty folder for files and logs.
            ready: called with the process id of each node's worker once requests are answered.

        Raises:
            InputError: a port is taken, or a process of Dynamo did not start.
        """
        for port in (self.port, self.metrics_port):
            check_free(port)
        with in_use(self.policy), mock_workers(self.config, folder) as workers, dynamo_environment(folder):
            asyncio.run(self._serve(folder, lambda: ready([worker.pid for worker in workers])))

    async def _serve(self, folder: Path, ready: Callable[[], None]) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        clock = LiveClock()
        own, router, metrics = await self._start_router(clock)
        server, thread = start_http_server(self.metrics_port, "127.0.0.1", metrics.registry)
        tasks = [
            asyncio.create_task(_sample(metrics)),
            asyncio.create_task(self._answer_on(own, router, clock, folder)),
        ]
        try:
            with children(folder, {"frontend": Frontend(self.port, NAMESPACE)}):
                await _until_listed(self.port)
                ready()
                waiting = asyncio.create_task(stopped.wait())
                await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                if task.done():
                    task.result()
                task.cancel()
            server.shutdown()
            thread.join()
            server.server_close()
            own.shutdown()

    async def _start_router(self, clock: LiveClock) -> tuple[Any, LiveRouter, ServiceMetrics]:
        """Dynamo's runtime, a router that is ready, and its metrics."""
        own, clients = await connect(sum(parse_shape(self.config.shape)))
        metrics = ServiceMetrics(Topology(self.config), self.alarm_s)
        shared = random_prompt(np.random.default_rng(0), self.longest_prompt)
        router = LiveRouter(self.config, self.policy, clients, clock, shared, metrics)
        metrics.watch(router.view)
        for node in range(len(clients)):
            follow_steps(own, node, router.stepped)
        await asyncio.sleep(SUBSCRIBED_S)
        await router.warm()
        return own, router, metrics

    async def _answer_on(self, own: Any, router: LiveRouter, clock: LiveClock, folder: Path) -> None:
        """Register the router as the model's only worker, and answer requests until cancelled."""
        from dynamo.llm import ModelInput, ModelType, WorkerType, register_model

        endpoint = own.endpoint(f"{NAMESPACE}.router.generate")
        kinds = ModelType.Chat | ModelType.Completions
        await register_model(
            ModelInput.Tokens, kinds, endpoint, str(folder / "model"), MODEL, worker_type=WorkerType.Aggregated
        )
        numbers = count()

        async def answer(asked: Any, context: Any) -> AsyncIterator[dict[str, Any]]:
            from dynamo.llm.exceptions import HttpError

            most = asked["stop_conditions"]["max_tokens"] or _MOST_TOKENS
            tokens = asked["token_ids"]
            slo_s = self.slos.ttft_s + (self.slos.ttft_per_1k_tokens_s or 0.0) * len(tokens) / 1000
            request = Request(next(numbers), clock.now_s, len(tokens), most, slo_s, self.slos.tbt_s)
            try:
                async for new in router.answer(request, tokens):
                    if context.is_stopped():  # the client has gone
                        return
                    yield {"token_ids": new}
            except InputError as error:
                raise HttpError(400, str(error)) from None
            except (RejectedError, WorkerLostError) as error:
                raise HttpError(503, str(error)) from None
            yield {"token_ids": [], "finish_reason": "length"}

        await endpoint.serve_endpoint(answer)


def check_free(port: int) -> None:
    """Raise InputError if a port of the loopback interface is taken."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            raise InputError(f"port {port} of 127.0.0.1 is taken; give another") from None


async def _sample(metrics: ServiceMetrics) -> None:
    while True:
        metrics.sample()
        await asyncio.sleep(SAMPLE_S)


async def _until_listed(port: int) -> None:
    """Wait until the HTTP server lists the model."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + _LISTED_WITHIN_S
    while loop.time() < until_s:
        if MODEL in await loop.run_in_executor(None, _models, port):
            return
        await asyncio.sleep(0.1)
    raise InputError(f"the HTTP server on port {port} did not find the router within {_LISTED_WITHIN_S:g} s")


def _models(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2.0) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, urllib.error.URLError):
        return ""
