"""Side by side with NVIDIA's AISimulate: the same trace through both in turn, their speed and their latencies.

    python -m experiments.against_aisimulate --python /path/to/its/bin/python --trace FILE [--rate-scale 3] [--json]

AISimulate lives in an environment of its own; docs/peers.md says how to make one. In each round a fresh process there
replays the trace twice, with a record a request, as this cluster leaves one, and without; then this cluster plays the
same requests twice, with AISimulate's own placements and under `static`. Both have one thread, and warm up on a hundred
requests.

requests/s: requests over the CPU seconds of the simulation alone, start-up and reading excluded. AISimulate: its own
    clock of the replay, times the CPU seconds that its process got (all threads) per second of the call; this
    cluster: the process time of `simulate`. So waiting for a processor counts for neither.
ratio: this cluster's over AISimulate's within a round; quote the median.
latencies: request by request, under AISimulate's placements.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import policies
from envs.cluster import ClusterConfig, Policy, RequestRecord, simulate
from envs.cluster.config import parse_shape
from envs.traces import formats, read_trace
from envs.workload import Workload
from experiments import replay
from hardware_profiles import InputError, Profile, load_profile
from hardware_profiles.cli import Parser, run_main

_WORKER = Path(__file__).with_name("aisimulate_worker.py")
_NOT_INSTALLED = 3  # the worker's exit code
_WARM_UP_REQUESTS = 100
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
    """What the worker is told.

    Raises:
        InputError: a profile that was not made from a system, a backend and a model that AISimulate may know.
    """
    provenance = profile.provenance
    if missing := [name for name in ("system", "backend", "tp") if name not in provenance]:
        raise InputError(f"profile {profile.name}: its provenance names no {missing[0]}, so AISimulate cannot run it")
    prefill_nodes, decode_nodes = parse_shape(shape)
    return {
        "model": profile.model,
        "system": provenance["system"],
        "backend": provenance["backend"],
        "tp": provenance["tp"],
        "prefill_nodes": prefill_nodes,
        "decode_nodes": decode_nodes,
        "token_budget": ClusterConfig(profile).token_budget,
        "link_gb_per_s": link_gb_per_s,
        "records": [True, False],
        "requests": [(row[0] * 1e3, row[1], row[2]) for row in workload.rows()],
    }


def run_worker(python: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What AISimulate did with a job, in a process of its own.

    Raises:
        InputError: no such interpreter, no AISimulate in it, or AISimulate refuses the job.
    """
    try:
        done = subprocess.run(
            [python, "-I", _WORKER],  # isolated: neither our variables nor our modules reach it
            input=json.dumps(told),
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
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def recording_of(records: Sequence[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """AISimulate's records of its requests as the columns of a recording.

    Raises:
        InputError: a request that it did not finish.
    """
    unfinished = sum(any(record[key] is None for key in _RECORD_KEYS.values()) for record in records)
    if unfinished:
        raise InputError(f"AISimulate left {unfinished} of {len(records)} requests unfinished")
    return replay.in_order(
        {
            name: np.array([float(record[key]) for record in records], dtype=np.float64)
            for name, key in _RECORD_KEYS.items()
        }
    )


def peer_per_s(requests: int, run: dict[str, float]) -> float:
    """Requests a CPU second of one of the worker's runs; see the module's text."""
    return requests / (run["own_s"] * run["cpu_s"] / run["wall_s"])


def ours_per_s(workload: Workload, policy: Policy, config: ClusterConfig) -> tuple[float, list[RequestRecord]]:
    """Requests a CPU second of this cluster, and its records."""
    began = process_time()
    records = simulate(workload, policy, config).records
    return len(records) / (process_time() - began), records


def spread(values: Sequence[float]) -> dict[str, float]:
    """Best, median and least of what the rounds gave."""
    return {"best": max(values), "median": float(np.median(values)), "least": min(values)}


def side_by_side(
    python: Path, workload: Workload, profile: Profile, shape: str, link_gb_per_s: float, rounds: int
) -> dict[str, Any]:
    """All figures; see the module's text.

    Args:
        python: interpreter of the environment that has AISimulate.
        workload: the requests.
        profile: machine and model of every node.
        shape: of the cluster.
        link_gb_per_s: bandwidth between nodes for each GPU, 10^9 bytes a second; no latency, which AISimulate has
            none of.
        rounds: how often.

    Returns:
        The JSON object of the command: its figures of speed each have best, median and least.

    Raises:
        InputError: as `job`, `run_worker` and `recording_of`; a request that does not fit the profile's KV capacity.
    """
    told = job(workload, profile, shape, link_gb_per_s)
    requests = len(workload)
    figures: dict[str, list[float]] = {
        name: [] for name in ("aisimulate", "aisimulate_no_records", "ours", "ours_static", "ratio", "ratio_no_records")
    }
    latencies: dict[str, object] = {}
    version = ""
    for _ in range(rounds):
        peer = run_worker(python, told)
        version = peer["version"]
        recording = recording_of(peer["records"])
        machine = replay.with_link(profile, link_gb_per_s)
        workload, recorded, config = replay.set_up(recording, machine, workload.label, shape)
        simulate(workload.head(_WARM_UP_REQUESTS), recorded, config)
        ours, records = ours_per_s(workload, recorded, config)
        with_records, without = (peer_per_s(requests, run) for run in peer["runs"])
        figures["aisimulate"].append(with_records)
        figures["aisimulate_no_records"].append(without)
        figures["ours"].append(ours)
        figures["ours_static"].append(ours_per_s(workload, policies.make("static"), config)[0])
        figures["ratio"].append(ours / with_records)
        figures["ratio_no_records"].append(ours / without)
        latencies = replay.held_against(recording, records)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "aisimulate_version": version,
        "requests": requests,
        "rounds": rounds,
        **{name: spread(values) for name, values in figures.items()},
        **latencies,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser(
        prog="python -m experiments.against_aisimulate", description="Speed and latencies beside NVIDIA's AISimulate."
    )
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment that has aisimulate")
    parser.add_argument("--trace", type=Path, required=True, metavar="FILE", help="requests to replay")
    parser.add_argument("--trace-format", choices=formats(), default="azure", help="its format (default %(default)s)")
    parser.add_argument("--rate-scale", type=float, default=3.0, help="compress its time by (default %(default)g)")
    parser.add_argument("--limit", type=int, metavar="N", help="only its first N requests")
    parser.add_argument("--profile", default="a100-qwen3-8b", help="hardware profile (default %(default)s)")
    parser.add_argument("--cluster", default="2P2D", help="cluster shape (default %(default)s)")
    parser.add_argument("--link-gb-per-s", type=float, default=20.8, help="between nodes, a GPU (default %(default)g)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both are run (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args(argv)
    if not 0.0 < arguments.link_gb_per_s < float("inf"):
        raise InputError(f"--link-gb-per-s must be above 0, not {arguments.link_gb_per_s}")
    if not 1 <= arguments.rounds <= 100:
        raise InputError(f"--rounds must be from 1 to 100, not {arguments.rounds}")
    workload = read_trace(
        arguments.trace, arguments.trace_format, rate_scale=arguments.rate_scale, limit=arguments.limit
    )
    found = side_by_side(
        arguments.python,
        workload,
        load_profile(arguments.profile),
        arguments.cluster,
        arguments.link_gb_per_s,
        arguments.rounds,
    )
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"AISimulate {found['aisimulate_version']}, {len(workload)} requests: {workload.label}")
    heading = f"requests/s, {found['rounds']} rounds"
    print(f"\n{heading:42} {'best':>9} {'median':>9} {'least':>9}")
    for name, text in (
        ("aisimulate", "AISimulate, a record a request"),
        ("aisimulate_no_records", "AISimulate, summary only"),
        ("ours", "this cluster, AISimulate's placements"),
        ("ours_static", "this cluster, static"),
    ):
        print(f"{text:42} {found[name]['best']:9.0f} {found[name]['median']:9.0f} {found[name]['least']:9.0f}")
    for name, text in (("ratio", "ratio, a record a request"), ("ratio_no_records", "ratio to summary only")):
        print(f"{text:42} {found[name]['best']:9.2f} {found[name]['median']:9.2f} {found[name]['least']:9.2f}")
    print()
    replay.print_latencies(found)


if __name__ == "__main__":
    run_main(main)
