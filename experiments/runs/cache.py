"""The resumable cache: every finished result of a command, one entry per task.

The result of a task is kept under the digest of its fields and code. So a command that is given another policy, seed or
load runs only what is new, a killed command resumes, and changed code is never answered with an old result.

A folder of results holds `results.jsonl`, one line per finished task with its value, and next to it the larger files of
tasks that have them. The files are written first, so an entry is there whole or not at all.
"""

import io
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.cluster import ClusterConfig
from experiments.runs import fingerprint
from experiments.runs.executors import Execution
from hardware_profiles.files import replacing
from policies import PolicySpec


class Result(NamedTuple):
    """The result of a task: numbers and text as JSON has them, and the contents of larger files by suffix."""

    value: Any
    files: dict[str, bytes]


class Entry(NamedTuple):
    """A finished task: the value of its result, and where its files are, without their suffix."""

    value: Any
    path: Path

    def arrays(self, suffix: str) -> dict[str, Any]:
        """The content of one of its npz files."""
        with np.load(self.path.with_suffix(suffix)) as file:
            return dict(file)


@dataclass(frozen=True)
class Task(ABC):
    """Something to run once: a picklable dataclass, whose text is shown in lines of progress."""

    @cached_property
    def key(self) -> str:
        """The digest of everything that the result depends on: the fields, and the code of the module."""
        kind = type(self)
        values = [_identity(getattr(self, one.name)) for one in fields(self)]
        return fingerprint.digest(fingerprint.code(kind.__module__), kind.__name__, *values)

    def inputs(self) -> Any:
        """The argument of `run`, which is made on this machine when the task's turn comes; picklable."""
        return None

    @abstractmethod
    def run(self, inputs: Any) -> Result:
        """Run the task; maybe in another process or on another machine."""


def _identity(value: object) -> str:
    match value:
        case PolicySpec():
            return fingerprint.policy(value)
        case ClusterConfig():
            return fingerprint.cluster(value)
        case Task():
            return value.key
    return repr(value)


def packed(**arrays: Any) -> bytes:
    """The content of an npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@dataclass
class Cache:
    """The results in a folder, which is made when there is one, and where missing ones are run."""

    folder: Path
    execution: Execution = field(default_factory=Execution)
    _values: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = self.folder / "results.jsonl"
        text = self._index.read_text(encoding="utf-8") if self._index.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line of a killed command
            with replacing(self._index) as temporary:
                temporary.write_text(whole, encoding="utf-8")
        self._values = {entry["key"]: entry["value"] for entry in map(json.loads, whole.splitlines())}

    def run(self, tasks: Sequence[Task], what: str = "runs") -> list[Entry]:
        """Run the tasks that are not finished yet and return all of them in order; progress goes to stderr.

        Tasks that share requests should follow each other.
        """
        by_key = {task.key: task for task in tasks}
        missing = [task for key, task in by_key.items() if key not in self._values]
        if len(missing) < len(by_key):
            print(f"{len(by_key) - len(missing)} of {len(by_key)} {what} are finished already", file=sys.stderr)
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
        began_s = time.perf_counter()
        results = self.execution.finished(_run, missing, lambda task: (task, task.inputs()))
        for done, (task, result) in enumerate(results, start=1):
            self._keep(task, result)
            left_s = (time.perf_counter() - began_s) / done * (len(missing) - done)
            print(f"[{done}/{len(missing)}] {task}, about {left_s:.0f} s left", file=sys.stderr)
        return [Entry(self._values[task.key], self.folder / task.key) for task in tasks]

    def _keep(self, task: Task, result: Result) -> None:
        for suffix, content in result.files.items():
            with replacing(self.folder / f"{task.key}{suffix}") as temporary:
                temporary.write_bytes(content)
        line = json.dumps({"key": task.key, "task": str(task), "value": result.value})
        with self._index.open("a", encoding="utf-8") as index:
            index.write(line + "\n")
        self._values[task.key] = json.loads(line)["value"]


def _run(job: tuple[Task, Any]) -> Result:
    task, inputs = job
    return task.run(inputs)
