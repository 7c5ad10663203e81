"""Cells: one policy on one workload at one load with one seed, run apart, kept, and run once.

Every cell is a job of its own for a pool of processes. A finished cell is two files in a folder: NAME.npz
with what happened to each request, then NAME.json with its metrics. A cell that is there already is not run
again; its name holds a fingerprint of the code and the inputs, so one that would come out differently now
is not taken for it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import policies
from agents.processes import finished
from envs.cluster import ClusterConfig, simulate
from envs.workload import Workload
from experiments import metrics
from experiments.digests import digest
from experiments.metrics import Attainment, Metrics, Records
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
        label: how its requests were made.
        rate_rps: requests per second that arrived, over the whole run.
        end_s: when the run ended.
        path: its file of requests.
    """

    cell: Cell
    metrics: Metrics
    label: str
    rate_rps: float
    end_s: float
    path: Path

    @property
    def requests(self) -> tuple[Records, NDArray[np.bool_]]:
        """What happened to each request, and whether it met both SLOs; read from its file each time."""
        with np.load(self.path) as arrays:
            return arrays["records"], arrays["met"]


@dataclass(frozen=True)
class _Job:
    cell: Cell
    workload: Workload
    config: ClusterConfig
    path: Path


def _run(job: _Job) -> float:
    """Simulate a cell and keep it; returns the seconds it took."""
    began_s = time.perf_counter()
    policy = policies.make(job.cell.policy, seed=job.cell.seed)
    workload = job.workload
    result = simulate(workload, policy, job.config, drain_s=DRAIN_S, time_decisions=True)
    records = metrics.as_array(result.records)
    index = records["request"]
    met = Attainment.of(records, workload.ttft_slo_s[index], workload.tbt_slo_s[index]).both
    with replacing(job.path.with_suffix(".npz")) as path, path.open("wb") as file:
        np.savez_compressed(file, records=records, met=met)
    kept = {
        "cell": job.cell._asdict(),
        "label": workload.label,
        "rate_rps": workload.rate_rps,
        "end_s": result.end_s,
        "metrics": asdict(metrics.measure(result, workload, job.config)),
    }
    # Last, so that a cell with this file is whole.
    with replacing(job.path) as path:
        path.write_text(json.dumps(kept, indent=1))
    return time.perf_counter() - began_s


def _load(path: Path) -> Outcome:
    kept = json.loads(path.read_text())
    return Outcome(
        Cell(**kept["cell"]),
        Metrics(**kept["metrics"]),
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
    paths: Mapping[Cell, Path],
    workload_of: Callable[[str, float, int], Workload],
    config: ClusterConfig,
) -> Iterator[_Job]:
    """Jobs for `cells`; the requests of a (workload, load, seed) are made once and given to every policy."""
    made: dict[tuple[str, float, int], Workload] = {}
    for cell in cells:
        key = (cell.workload, cell.load, cell.seed)
        if key not in made:
            made[key] = workload_of(*key)
        yield _Job(cell, made[key], config, paths[cell])


def run_cells(
    cells: Iterable[Cell],
    workload_of: Callable[[str, float, int], Workload],
    config: ClusterConfig,
    folder: Path,
    *,
    fingerprint: str = "",
    jobs: int = 1,
) -> list[Outcome]:
    """Run the cells that `folder` does not hold yet and return all of them in order; progress goes to stderr.

    Args:
        cells: what to run.
        workload_of: the requests of a (workload, load, seed).
        config: the cluster.
        folder: where finished cells are kept.
        fingerprint: of everything else that the numbers depend on (code, input files, cluster).
        jobs: processes; 1 runs them here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {cell: _path(cell, folder, fingerprint) for cell in cells}
    missing = [cell for cell, path in paths.items() if not path.exists()]
    if len(missing) < len(paths):
        print(f"{len(paths) - len(missing)} of {len(paths)} cells are there already", file=sys.stderr)
    todo = _jobs(missing, paths, workload_of, config)
    began_s = time.perf_counter()
    for done, (job, took_s) in enumerate(finished(_run, todo, jobs), start=1):
        cell = job.cell
        left_s = (time.perf_counter() - began_s) / done * (len(missing) - done)
        print(
            f"[{done}/{len(missing)}] {cell.policy} {cell.workload} load {cell.load:g} seed {cell.seed}: "
            f"{took_s:.1f} s, about {left_s:.0f} s left",
            file=sys.stderr,
        )
    return [_load(path) for path in paths.values()]
