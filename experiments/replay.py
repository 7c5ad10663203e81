"""Replay recorded placements and compare the cluster with the recording, request by request.

    python -m experiments.replay --recording FILE --profile P [--link-gb-per-s 20.8] --json

`crosscheck.recording` describes recordings, and the JSON object.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from envs.cluster import simulate
from experiments.crosscheck.recording import compare_latencies, latency_table, read_recording, set_up, with_link
from experiments.options.parser import CommandOptions, check_positive, command, option
from hardware_profiles import InputError, Profile, load_profile


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(CommandOptions):
    """Options of `experiments.replay`."""

    recording: Path = option(metavar="FILE", help="CSV file of a recording, gzip or plain")
    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile it was made for")
    link_gb_per_s: float = option(20.8, metavar="X", help="bandwidth between nodes per GPU, 10^9 bytes per second")
    json: bool = option(False, help="print one JSON object instead of a table")

    def __post_init__(self) -> None:
        check_positive(self, "link_gb_per_s")


def replay(path: Path, profile: Profile) -> dict[str, Any]:
    """The JSON object of the command, for a recording and a profile; an InputError names the file."""
    recording = read_recording(path)
    try:
        if recording["output_tokens"].max() < 2:
            raise InputError("no request of two tokens or more, so there is no ITL to compare")
        workload, policy, config = set_up(recording, profile, f"recording {path.name}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    began = perf_counter()
    records = simulate(workload, policy, config).records
    speed = {"requests_per_s": len(records) / (perf_counter() - began)}
    return compare_latencies(recording, records) | speed


def run(options: ReplayOptions) -> None:
    """Replay the recording and print the comparison."""
    found = replay(options.recording, with_link(load_profile(options.profile), options.link_gb_per_s))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{latency_table(found)}\n{found['requests_per_s']:.0f} requests simulated per second")


if __name__ == "__main__":
    command(ReplayOptions, run, "replay", "Compare the cluster with a recording.")
