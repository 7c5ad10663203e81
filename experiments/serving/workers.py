"""Starts mock workers, one process per node, and ends them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from select import select
from time import monotonic

import numpy as np

from envs.cluster import ClusterConfig, parse_shape
from experiments.serving.mock_timing import MockLaw
from experiments.serving.mock_worker import MockWorker
from experiments.serving.model_folder import MODEL, write_model_folder
from hardware_profiles import InputError

BLOCK_TOKENS = 4
"""Tokens of a block of the engines' prefix caches; a node that is handed a prompt over computes at most one block."""
LONGEST_CONTEXT = 131_072
_READY_WITHIN_S = 60.0

ENVIRONMENT = {
    "DYN_COMPUTE_THREADS": "0",
    "DYN_HTTP_RPC_HOST": "127.0.0.1",
    "DYN_LOG": "warn,router.route_request=off",
    "DYN_SELF_HOST_METADATA": "0",
    "DYN_TCP_RPC_HOST": "127.0.0.1",
}
"""Variables of Dynamo's processes: on the loopback interface only, and quiet."""


def endpoint(node: int) -> str:
    """Where the worker of a node is found."""
    return f"placement.node{node}.generate"


class Workers:
    """Running mock workers.

    Attributes:
        folder: holds the model folder, the discovery files and one log per worker.
        processes: by node.
    """

    def __init__(self, folder: Path, processes: list["subprocess.Popen[bytes]"]) -> None:
        self.folder = folder
        self.processes = processes

    def kill(self, node: int) -> None:
        """Kill a worker without warning, as a crash would."""
        self.processes[node].kill()
        self.processes[node].wait()


def variables(folder: Path) -> dict[str, str]:
    """The variables of a Dynamo process that belongs to the workers of a folder."""
    return {**ENVIRONMENT, "DYN_FILE_KV": str(folder / "discovery")}


@contextmanager
def mock_workers(config: ClusterConfig, folder: Path, speedup: float = 1.0) -> Iterator[Workers]:
    """Start one mock worker per node of a cluster, with the step law of `mock_timing`; end them at the exit.

    Args:
        config: the cluster.
        folder: an empty folder for their files and logs.
        speedup: factor on the speed of the engines.

    Raises:
        InputError: a worker did not start; the text ends with the last line of its log.
    """
    write_model_folder(folder / "model", LONGEST_CONTEXT)
    capacity = config.profile.kv_capacity_tokens
    tables = MockLaw.of(config.profile.law).tables(config.token_budget, capacity, LONGEST_CONTEXT)
    np.savez(folder / "timing.npz", **tables)  # type: ignore[arg-type]
    engine = {
        "backend": "vllm",
        "worker_type": "aggregated",
        "num_gpu_blocks": capacity // BLOCK_TOKENS,
        "block_size": BLOCK_TOKENS,
        "max_num_batched_tokens": config.token_budget,
        "max_num_seqs": config.max_seqs,
        "enable_prefix_caching": True,
        "speedup_ratio": speedup,
        "timing_model": {
            "type": "external",
            "provider": "dynamo_profile",
            "config": {"path": str(folder / "timing.npz")},
        },
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for node in range(sum(parse_shape(config.shape))):
            job = MockWorker(endpoint(node), str(folder / "model"), MODEL, engine)
            started.append(_start(folder, f"node{node}", asdict(job)))
        for node, process in enumerate(started):
            _wait_until_ready(process, folder / f"node{node}.log", node)
        yield Workers(folder, started)
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()


def _start(folder: Path, name: str, job: Mapping[str, object]) -> "subprocess.Popen[bytes]":
    path = folder / f"{name}.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.serving.mock_worker", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **variables(folder)},
            preexec_fn=_leave_interrupts,
        )


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path, node: int) -> None:
    assert process.stdout is not None
    until_s = monotonic() + _READY_WITHIN_S
    while (left_s := until_s - monotonic()) > 0 and select([process.stdout], [], [], left_s)[0]:
        line = process.stdout.readline()
        if line == b"ready\n":
            return
        if not line:
            break
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing in its log"]
    raise InputError(f"the mock worker of node {node} did not start: {lines[-1]}")
