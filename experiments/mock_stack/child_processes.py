"""Starts and ends processes of Dynamo."""

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

from experiments.mock_stack.dynamo_process import Frontend, MockWorker
from hardware_profiles import InputError

Child = subprocess.Popen[bytes]

_READY_WITHIN_S = 60.0
_ENVIRONMENT = {
    "DYN_COMPUTE_THREADS": "0",
    "DYN_EVENT_PLANE_HOST": "127.0.0.1",
    "DYN_HTTP_RPC_HOST": "127.0.0.1",
    "DYN_LOG": "error",
    "DYN_RUNTIME_NUM_WORKER_THREADS": "1",
    "DYN_SELF_HOST_METADATA": "0",
    "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
    "DYN_TCP_RPC_HOST": "127.0.0.1",
}
"""Variables of all processes: on the loopback interface, and quiet. The event plane binds its random ports on all
interfaces whatever it is told; it is told the address to advertise."""


def variables(folder: Path) -> dict[str, str]:
    """The variables of processes that find each other by the files of a folder."""
    return {**_ENVIRONMENT, "DYN_FILE_KV": str(folder / "discovery")}


@contextmanager
def children(folder: Path, jobs: Mapping[str, MockWorker | Frontend]) -> Iterator[dict[str, Child]]:
    """Start a process for each job, at once, and wait until all are ready; end them at the exit.

    Args:
        folder: of their files; each writes NAME.log there.
        jobs: by name.

    Raises:
        InputError: one did not start; the text ends with the last line of its log.
    """
    started: dict[str, Child] = {}
    try:
        for name, job in jobs.items():
            started[name] = _start(folder, name, job)
        for name, process in started.items():
            _wait_until_ready(process, folder / f"{name}.log", name)
        yield started
    finally:
        for process in started.values():
            process.kill()
        for process in started.values():
            process.communicate()


def _start(folder: Path, name: str, job: MockWorker | Frontend) -> Child:
    path = folder / f"{name}.json"
    path.write_text(json.dumps([type(job).__name__, asdict(job)]), encoding="utf-8")
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.mock_stack.dynamo_process", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **variables(folder)},
            preexec_fn=_as_another_machine,
        )


def _as_another_machine() -> None:
    """Leave Ctrl-C to the parent, and the cores too when it needs them: in use, these run on other machines."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)


def _wait_until_ready(process: Child, log: Path, name: str) -> None:
    assert process.stdout is not None
    until_s = monotonic() + _READY_WITHIN_S
    while (left_s := until_s - monotonic()) > 0 and select([process.stdout], [], [], left_s)[0]:
        line = process.stdout.readline()
        if line == b"ready\n":
            return
        if not line:
            break
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing in its log"]
    raise InputError(f"the process {name} of Dynamo did not start: {lines[-1]}")
