"""The process of one mock worker: `python -m experiments.serving.mock_worker JOB`, started by `serving.workers`.

JOB is a JSON file with a `MockWorker`. The process registers the worker, says "ready" on stdout, and ends when its
stdin is closed, which is when its parent ends, however that happens.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

DISCOVERY, REQUESTS, EVENTS = "file", "tcp", "zmq"
"""How Dynamo's processes find each other, send requests and publish events: without other servers."""


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
    engine: dict[str, object]


async def serve(worker: MockWorker) -> None:
    """Register a worker and serve until it is cancelled."""
    from dynamo._core import _normalize_mocker_config
    from dynamo.llm import EngineType, EntrypointArgs, ModelRuntimeConfig, make_engine, run_input
    from dynamo.runtime import DistributedRuntime

    runtime = DistributedRuntime(asyncio.get_running_loop(), DISCOVERY, REQUESTS, event_plane=EVENTS)
    limits = ModelRuntimeConfig()
    limits.total_kv_blocks = worker.engine["num_gpu_blocks"]
    limits.max_num_seqs = worker.engine["max_num_seqs"]
    limits.max_num_batched_tokens = worker.engine["max_num_batched_tokens"]
    arguments = EntrypointArgs(
        engine_type=EngineType.Mocker,
        model_path=worker.model,
        model_name=worker.name,
        endpoint_id=f"dyn://{worker.endpoint}",
        mocker_engine_args=_normalize_mocker_config({"engine": worker.engine}),
        runtime_config=limits,
        kv_cache_block_size=worker.engine["block_size"],
    )
    serving = run_input(runtime, f"dyn://{worker.endpoint}", await make_engine(runtime, arguments))
    print("ready", flush=True)
    await serving


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(path: str) -> None:
    """Run the worker of a job file."""
    Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(serve(MockWorker(**json.loads(Path(path).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main(sys.argv[1])
