"""Cells: one policy on one workload at one load with one seed, run apart, kept, and run once.

Every cell is a job of its own, here or on another machine: it is handed all it needs, and what it found is handed back
and written here. A finished cell is three files in a folder: NAME.npz with what happened to each request, NAME.csv.gz
with the same as its part of requests.csv.gz, then NAME.json with its metrics. A cell that is there already is not run
again; its name holds a fingerprint of the code and the inputs, so one that would come out differently now is not taken
for it.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import policies
from envs.cluster import ClusterConfig, Policy, simulate
from envs.workload import Workload
from experiments import metrics
from experiments.digests import digest
from experiments.executors import finished
from experiments.metrics import Attainment, Metrics, Records
from experiments.request_rows import packed_rows
from experiments.tally import Tally
from hardware_profiles.files import replacing

DRAIN_S = 600.0
"""How long a run may go on after the last arrival; what is unfinished then counts as a miss."""


class Cell(NamedTuple):
    """What identifies a run. `policy` is what `policies.make` takes."""

    policy: str
    workload: str
    load: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """A finished cell.

    Attributes:
        cell: which one.
        metrics: its row.
        tally: counts over its requests.
        label: how its requests were made.
        rate_rps: requests per second that arrived, over the whole run.
        end_s: when the run ended.
        path: its file of requests.
    """

    cell: Cell
    metrics: Metrics
    tally: Tally
    label: str
    rate_rps: float
    end_s: float
    path: Path

    @property
    def requests(self) -> tuple[Records, NDArray[np.bool_]]:
        """What happened to each request, and whether it met both SLOs; read from its file each time."""
        with np.load(self.path) as arrays:
            return arrays["records"], arrays["met"]

    @property
    def packed_rows(self) -> bytes:
        """Its part of requests.csv.gz."""
        return self.path.with_suffix(".csv.gz").read_bytes()


@dataclass(frozen=True)
class _Job:
    """A cell to run.

    Attributes:
        cell: which one.
        workload: its requests.
        config: the cluster.
        trained: its policy where that is read from a file, which may be on this machine alone.
        requests: keep what happened to each request.
    """

    cell: Cell
    workload: Workload
    config: ClusterConfig
    trained: Policy | None
    requests: bool


class _Ran(NamedTuple):
    """The content of a cell's files by suffix, the one that makes it whole last, and the seconds it took."""

    files: dict[str, bytes]
    took_s: float


def _run(job: _Job) -> _Ran:
    """Simulate a cell."""
    began_s = time.perf_counter()
    policy = job.trained if job.trained is not None else policies.make(job.cell.policy, seed=job.cell.seed)
    workload = job.workload
    result = simulate(workload, policy, job.config, drain_s=DRAIN_S, time_decisions=True)
    records = metrics.as_array(result.records)
    index = records["request"]
    met = Attainment.of(records, workload.ttft_slo_s[index], workload.tbt_slo_s[index]).both
    cell = job.cell
    files: dict[str, bytes] = {}
    if job.requests:
        arrays = io.BytesIO()
        np.savez_compressed(arrays, records=records, met=met)
        files[".npz"] = arrays.getvalue()
        files[".csv.gz"] = packed_rows(cell.policy, cell.workload, cell.load, cell.seed, records, met)
    kept = {
        "cell": cell._asdict(),
        "label": workload.label,
        "rate_rps": workload.rate_rps,
        "end_s": result.end_s,
        "metrics": asdict(metrics.measure(result, workload, job.config)),
        "tally": asdict(Tally.of(records, result.end_s)),
    }
    files[".json"] = json.dumps(kept, indent=1).encode()
    return _Ran(files, time.perf_counter() - began_s)


def _keep(ran: _Ran, path: Path) -> None:
    for suffix, content in ran.files.items():
        with replacing(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(content)


def _load(path: Path) -> Outcome:
    kept = json.loads(path.read_text())
    return Outcome(
        Cell(**kept["cell"]),
        Metrics(**kept["metrics"]),
        Tally(**kept["tally"]),
        kept["label"],
        kept["rate_rps"],
        kept["end_s"],
        path.with_suffix(".npz"),
    )


def _path(cell: Cell, folder: Path, fingerprint: str) -> Path:
    name = "-".join([Path(cell.policy).name, cell.workload, f"load{cell.load:g}", f"seed{cell.seed}"])
    safe = "".join(char if char.isalnum() or char in "-_.=" else "_" for char in name)
    return folder / f"{safe}-{digest(repr(tuple(cell)), fingerprint)}.json"


def _jobs(
    cells: Iterable[Cell],
    workload_of: Callable[[str, float, int], Workload],
    config: ClusterConfig,
    requests: bool,
) -> Iterator[_Job]:
    """Jobs for `cells`; cells of one (workload, load, seed) that follow each other share its requests."""
    made: tuple[str, float, int] | None = None
    for cell in cells:
        if made != cell[1:]:
            made = cell[1:]
            workload = workload_of(*made)
        trained = policies.make(cell.policy, seed=cell.seed) if policies.trained_path(cell.policy) else None
        yield _Job(cell, workload, config, trained, requests)


def run_cells(
    cells: Iterable[Cell],
    workload_of: Callable[[str, float, int], Workload],
    config: ClusterConfig,
    folder: Path,
    *,
    fingerprint: str = "",
    jobs: int | None = 1,
    executor: str = "local",
    requests: bool = True,
) -> list[Outcome]:
    """Run the cells that `folder` does not hold yet and return all of them in order; progress goes to stderr.

    Args:
        cells: what to run.
        workload_of: the requests of a (workload, load, seed).
        config: the cluster.
        folder: where finished cells are kept.
        fingerprint: of everything else that the numbers depend on (code, input files, cluster).
        jobs: cells at a time; see `executors.finished`, also for `executor`.
        executor: where they run.
        requests: keep what happened to each request, which is most of what a cell takes on a disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {cell: _path(cell, folder, fingerprint) for cell in cells}
    missing = [cell for cell, path in paths.items() if not path.exists()]
    if len(missing) < len(paths):
        print(f"{len(paths) - len(missing)} of {len(paths)} cells are there already", file=sys.stderr)
    todo = _jobs(missing, workload_of, config, requests)
    began_s = time.perf_counter()
    for done, (job, ran) in enumerate(finished(_run, todo, jobs, executor), start=1):
        cell = job.cell
        _keep(ran, paths[cell])
        left_s = (time.perf_counter() - began_s) / done * (len(missing) - done)
        print(
            f"[{done}/{len(missing)}] {policies.label(cell.policy)} {cell.workload} load {cell.load:g} "
            f"seed {cell.seed}: {ran.took_s:.1f} s, about {left_s:.0f} s left",
            file=sys.stderr,
        )
    return [_load(path) for path in paths.values()]
