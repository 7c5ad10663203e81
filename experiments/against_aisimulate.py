"""Compare speed and latencies with NVIDIA's AISimulate: the same trace through both in turn.

    python -m experiments.against_aisimulate --python /path/to/its/bin/python --trace FILE [--rate-scale 3] [--json]

AISimulate lives in a separate environment; docs/peers.md says how to make one. In each round a fresh process there
replays the trace twice, with one record per request, as this cluster leaves them, and without; then this cluster plays
the same requests twice, with AISimulate's placements and under `static`. Both have one thread, and warm up on a hundred
requests.

Requests per second are per CPU second of the simulation alone, start-up and reading excluded: for AISimulate see
`requests_per_cpu_s`, for this cluster the process time of `simulate`. So waiting for a processor counts for neither.
The ratio is this cluster's over AISimulate's within a round; quote the median. Latencies are compared request by
request, under AISimulate's placements.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import policies
from envs.cluster import ClusterConfig, Policy, RequestRecord, simulate
from envs.traces import formats, read_trace
from envs.workload import Workload
from experiments.crosscheck.aisimulate import job, recording_of, requests_per_cpu_s, run_worker
from experiments.crosscheck.recording import compare_latencies, latency_table, set_up, with_link
from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from hardware_profiles import InputError, Profile, load_profile

_WARM_UP_REQUESTS = 100
_MOST_ROUNDS = 100
_FIGURES = {  # name and decimals in the table
    "aisimulate": ("AISimulate, one record per request", 0),
    "aisimulate_no_records": ("AISimulate, summary only", 0),
    "cluster": ("this cluster, AISimulate's placements", 0),
    "cluster_static": ("this cluster, static", 0),
    "ratio": ("ratio, one record per request", 2),
    "ratio_no_records": ("ratio to summary only", 2),
}


@dataclass(frozen=True, kw_only=True)
class AgainstAISimulateOptions(CommandOptions):
    """Options of `experiments.against_aisimulate`."""

    python: Path = option(metavar="FILE", help="interpreter of an environment that has aisimulate")
    trace: Path = option(metavar="FILE", help="requests to replay")
    trace_format: str = option("azure", metavar="F", choices=formats(), help="its format")
    rate_scale: float = option(3.0, metavar="X", help="compress its time by X")
    limit: int | None = option(None, metavar="N", help="only its first N requests")
    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile")
    cluster: str = option("2P2D", metavar="NPMD", help="prefill and decode nodes")
    link_gb_per_s: float = option(20.8, metavar="X", help="bandwidth between nodes per GPU, 10^9 bytes per second")
    rounds: int = option(5, metavar="N", help="how often both are run")
    json: bool = option(False, help="print one JSON object instead of tables")

    def __post_init__(self) -> None:
        check_positive(self, "link_gb_per_s", "rate_scale")
        check_counts(self, "limit")
        if not 1 <= self.rounds <= _MOST_ROUNDS:
            raise InputError(f"--rounds {self.rounds}: must be from 1 to {_MOST_ROUNDS}")


def cluster_per_cpu_s(workload: Workload, policy: Policy, config: ClusterConfig) -> tuple[float, list[RequestRecord]]:
    """Requests per CPU second of this cluster, and its records."""
    began = process_time()
    records = simulate(workload, policy, config).records
    return len(records) / (process_time() - began), records


def spread(values: Sequence[float]) -> dict[str, float]:
    """Best, median and least of the rounds."""
    return {"best": max(values), "median": float(np.median(values)), "least": min(values)}


def side_by_side(
    python: Path, workload: Workload, profile: Profile, shape: str, link_gb_per_s: float, rounds: int
) -> dict[str, Any]:
    """The JSON object of the command: figures of speed with best, median and least of the rounds, and latencies.

    The link is a bandwidth per GPU without latency, as in AISimulate. An InputError as of `job`, `run_worker`,
    `recording_of` and `set_up`.
    """
    told = job(workload, profile, shape, link_gb_per_s)
    requests, of_rounds = len(workload), []
    for _ in range(rounds):
        peer = run_worker(python, told)
        recording = recording_of(peer["records"])
        workload, recorded, config = set_up(recording, with_link(profile, link_gb_per_s), workload.label, shape)
        simulate(workload.head(_WARM_UP_REQUESTS), recorded, config)
        cluster, records = cluster_per_cpu_s(workload, recorded, config)
        static, _ = cluster_per_cpu_s(workload, policies.make("static"), config)
        with_records, without = (requests_per_cpu_s(requests, run) for run in peer["runs"])
        of_rounds.append((with_records, without, cluster, static, cluster / with_records, cluster / without))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    figures = dict(zip(_FIGURES, map(spread, zip(*of_rounds, strict=True)), strict=True))
    latencies = compare_latencies(recording, records)
    return {"aisimulate_version": peer["version"], "requests": requests, "rounds": rounds, **figures, **latencies}


def run(options: AgainstAISimulateOptions) -> None:
    """Run both and print their figures."""
    workload = read_trace(options.trace, options.trace_format, rate_scale=options.rate_scale, limit=options.limit)
    profile = load_profile(options.profile)
    found = side_by_side(options.python, workload, profile, options.cluster, options.link_gb_per_s, options.rounds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"AISimulate {found['aisimulate_version']}, {found['requests']} requests: {workload.label}\n")
    print(f"{f'requests/s, {options.rounds} rounds':42} {'best':>9} {'median':>9} {'least':>9}")
    for name, (text, digits) in _FIGURES.items():
        print(f"{text:42}", *(f"{value:9.{digits}f}" for value in found[name].values()))
    print(f"\n{latency_table(found)}")


if __name__ == "__main__":
    command(AgainstAISimulateOptions, run, "against_aisimulate", "Compare speed and latencies with AISimulate.")
