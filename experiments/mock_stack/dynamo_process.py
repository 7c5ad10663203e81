"""A process of Dynamo: `python -m experiments.mock_stack.dynamo_process JOB`, started by `mock_stack.child_processes`.

JOB is a JSON file with a `MockWorker` or a `Frontend`. The process says "ready" on stdout, and ends when its stdin is
closed, which is when its parent ends, however that happens.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

DISCOVERY, REQUESTS, EVENTS = "file", "tcp", "zmq"
"""How Dynamo's processes find each other, send requests and publish events: without other servers."""


def runtime() -> Any:
    """Dynamo's runtime in this process, for the running event loop."""
    from dynamo.runtime import DistributedRuntime

    return DistributedRuntime(asyncio.get_running_loop(), DISCOVERY, REQUESTS, event_plane=EVENTS)


@dataclass(frozen=True)
class MockWorker:
    """One mock worker.

    Attributes:
        endpoint: where it is found, as namespace.component.endpoint.
        model: folder of the model's tokenizer and configuration.
        name: of the model.
        engine: options of the mock engine.
    """

    endpoint: str
    model: str
    name: str
    engine: dict[str, Any]

    async def start(self) -> Awaitable[None]:
        """Register the worker; the result is done when it ends."""
        from dynamo._core import _normalize_mocker_config
        from dynamo.llm import EngineType, EntrypointArgs, ModelRuntimeConfig, make_engine, run_input

        limits = ModelRuntimeConfig()
        limits.total_kv_blocks = self.engine["num_gpu_blocks"]
        limits.max_num_seqs = self.engine["max_num_seqs"]
        limits.max_num_batched_tokens = self.engine["max_num_batched_tokens"]
        arguments = EntrypointArgs(
            engine_type=EngineType.Mocker,
            model_path=self.model,
            model_name=self.name,
            endpoint_id=f"dyn://{self.endpoint}",
            mocker_engine_args=_normalize_mocker_config({"engine": self.engine}),
            runtime_config=limits,
            kv_cache_block_size=self.engine["block_size"],
        )
        own = runtime()
        serving: Awaitable[None] = run_input(own, f"dyn://{self.endpoint}", await make_engine(own, arguments))
        return serving


@dataclass(frozen=True)
class Frontend:
    """Dynamo's HTTP server with the interface of OpenAI.

    Attributes:
        port: on the loopback interface.
        namespace: it serves the models of this namespace.
    """

    port: int
    namespace: str

    async def start(self) -> Awaitable[None]:
        """Start the server; the result is done when it ends."""
        from dynamo.llm import EngineType, EntrypointArgs, RouterConfig, RouterMode, make_engine, run_input

        arguments = EntrypointArgs(
            engine_type=EngineType.Dynamic,
            router_config=RouterConfig(RouterMode.RoundRobin),
            http_host="127.0.0.1",
            http_port=self.port,
            namespace=self.namespace,
        )
        own = runtime()
        serving: Awaitable[None] = run_input(own, "http", await make_engine(own, arguments))
        return serving


KINDS: dict[str, Callable[..., MockWorker | Frontend]] = {kind.__name__: kind for kind in (MockWorker, Frontend)}


async def _run(job: MockWorker | Frontend) -> None:
    serving = await job.start()
    print("ready", flush=True)
    await serving


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(path: str) -> None:
    """Run the job of a file."""
    Thread(target=_end_with_stdin, daemon=True).start()
    kind, options = json.loads(Path(path).read_text(encoding="utf-8"))
    asyncio.run(_run(KINDS[kind](**options)))


if __name__ == "__main__":
    main(sys.argv[1])
