"""Runs of NVIDIA's AISimulate in a process of its environment, by `aisimulate_worker`."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.cluster import ClusterConfig
from envs.cluster.config import parse_shape
from envs.workload import Workload
from experiments.crosscheck.recording import Recording, in_order
from hardware_profiles import InputError, Profile

_WORKER = Path(__file__).with_name("aisimulate_worker.py")
_NOT_INSTALLED = 3  # the worker's exit code
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
_RECORD_KEYS = {
    "arrival_ms": "arrival_time_ms",
    "prompt_tokens": "input_length",
    "output_tokens": "output_length",
    "prefill_node": "prefill_worker_idx",
    "decode_node": "decode_worker_idx",
    "prefill_start_ms": "prefill_admit_ms",
    "first_token_ms": "first_token_ms",
    "last_token_ms": "last_token_ms",
}


def job(workload: Workload, profile: Profile, shape: str, link_gb_per_s: float) -> dict[str, Any]:
    """The input of the worker; an InputError if the profile's provenance does not say what AISimulate has to know."""
    told = ("system", "backend", "tp")
    if missing := [name for name in told if name not in profile.provenance]:
        raise InputError(f"profile {profile.name}: its provenance names no {missing[0]}, so AISimulate cannot run it")
    prefill_nodes, decode_nodes = parse_shape(shape)
    return {
        "model": profile.model,
        **{name: profile.provenance[name] for name in told},
        "prefill_nodes": prefill_nodes,
        "decode_nodes": decode_nodes,
        "token_budget": ClusterConfig(profile).token_budget,
        "link_gb_per_s": link_gb_per_s,
        "records": [True, False],
        "requests": [(row[0] * 1e3, row[1], row[2]) for row in workload.rows()],
    }


def run_worker(python: Path, job: Mapping[str, Any]) -> Any:
    """The result of `aisimulate_worker.run`, by an interpreter with AISimulate; an InputError says what went wrong."""
    try:
        done = subprocess.run(
            [python, "-I", _WORKER],  # isolated: neither variables nor modules of this process reach it
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | _ONE_THREAD,
        )
    except OSError as error:
        raise InputError(f"--python {python}: {error.strerror}; give an interpreter that has aisimulate") from error
    said = done.stderr.strip().splitlines()
    if done.returncode == _NOT_INSTALLED:
        raise InputError(f"--python {python}: {said[-1]} there; docs/peers.md says how to install AISimulate")
    if done.returncode != 0:
        raise InputError(f"AISimulate stopped with exit code {done.returncode}: {said[-1] if said else 'no message'}")
    return json.loads(done.stdout.splitlines()[-1])


def recording_of(records: Sequence[Mapping[str, Any]]) -> Recording:
    """AISimulate's records of its requests as the columns of a recording; an InputError if one is not finished."""
    rows = [[record[key] for key in _RECORD_KEYS.values()] for record in records]
    if unfinished := sum(None in row for row in rows):
        raise InputError(f"AISimulate left {unfinished} of {len(rows)} requests unfinished")
    return in_order(dict(zip(_RECORD_KEYS, np.array(rows, dtype=np.float64).T, strict=True)))


def requests_per_cpu_s(requests: int, run: Mapping[str, float]) -> float:
    """Requests per CPU second of one of the worker's runs: by AISimulate's own clock, times its share of a CPU."""
    return requests / (run["own_s"] * run["cpu_s"] / run["wall_s"])
