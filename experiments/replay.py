"""Replay recorded placements and hold the cluster against the recording, request by request.

    python -m experiments.replay --recording FILE --profile P [--link-gb-per-s 20.8] --json

A recording is a CSV file (gzip or plain) with the columns of NVIDIA AISimulate 0.13's replays: arrival_ms,
prompt_tokens, output_tokens, prefill_node, decode_node, prefill_start_ms, kv_reserved_ms (prefill end),
kv_ready_ms, first_token_ms, last_token_ms. Equal arrivals are served in prefill_start order. ITL is a
request's mean gap, (last token - first token) / (output tokens - 1), over requests of two tokens or more.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, Placement, RequestRecord, RequestView, RouterView, Topology, simulate
from envs.cluster.config import parse_shape
from envs.workload import Workload
from hardware_profiles import InputError, Link, Profile, load_profile
from hardware_profiles.cli import Parser, run_main

COLUMNS = (
    "arrival_ms",
    "prompt_tokens",
    "output_tokens",
    "prefill_node",
    "decode_node",
    "prefill_start_ms",
    "first_token_ms",
    "last_token_ms",
)
_NODE_COLUMNS = ("prefill_node", "decode_node")
_MOST_NODE = 998  # a cluster shape names at most 999 nodes of a role
_MOST_TOKENS = 10**9  # of one request; a number above it is a slip, not a length
# How the recorder's workers are set, seen in every prefill and transfer of its recordings: KV moves in blocks of 64
# tokens, and a prefill worker takes one prompt at a time, in chunks of 2048 tokens.
_RECORDER_BLOCK_TOKENS = 64
_RECORDER_PROMPTS = 1


class Recorded:
    """A policy that places each request where it was recorded."""

    name = "recorded"

    def __init__(self, placements: Sequence[Placement]) -> None:
        self._placements = placements

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002 - nothing is decided
        """Place one request."""
        return self._placements[request.number]


def _fault(row: Sequence[float]) -> str | None:
    """What is wrong with a row, its values in the order of COLUMNS; None where nothing is."""
    arrival_ms, _, output_tokens, _, _, prefill_start_ms, first_token_ms, last_token_ms = row
    counts = row[1:5]
    if not (
        all(isfinite(value) and value >= 0 for value in row)
        and all(value.is_integer() for value in counts)
        and min(counts[:2]) > 0
    ):
        return "times and nodes must be 0 or more, tokens and nodes whole, tokens above 0"
    for name, value in zip(COLUMNS[1:5], counts, strict=True):
        most = _MOST_NODE if name in _NODE_COLUMNS else _MOST_TOKENS
        if value > most:
            return f"{name} {value:g} is above {most}"
    if not arrival_ms <= prefill_start_ms <= first_token_ms <= last_token_ms:
        return "arrival, prefill start, first token and last token are out of order"
    if first_token_ms == arrival_ms:
        return "the first token is as early as the arrival"
    if output_tokens > 1 and last_token_ms == first_token_ms:
        return "the last token is as early as the first"
    return None


def read_recording(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a recording, rows in order of arrival and, where that is equal, of prefill start.

    Raises:
        InputError: a missing column or a bad row; names file, line and reason.
    """
    raw = path.read_bytes()
    try:
        lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file, plain or gzip ({error})") from error
    header = lines[0].split(",") if lines else []
    if missing := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{path}:1: no column {missing[0]}; a recording has {', '.join(COLUMNS)}")
    rows: list[list[float]] = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        if len(cells) != len(header):
            raise InputError(f"{path}:{number}: {len(cells)} values, the header names {len(header)} columns")
        try:
            row = [float(cells[header.index(name)]) for name in COLUMNS]
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if fault := _fault(row):
            raise InputError(f"{path}:{number}: {fault}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    table = np.array(rows)
    return in_order({name: table[:, i] for i, name in enumerate(COLUMNS)})


def in_order(columns: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The rows of a recording in order of arrival and, where that is equal, of prefill start."""
    order = np.lexsort((columns["prefill_start_ms"], columns["arrival_ms"]))
    return {name: values[order] for name, values in columns.items()}


def _summary(ttft_s: NDArray[np.float64], itl_s: NDArray[np.float64]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, values in (("ttft", ttft_s), ("itl", itl_s)):
        figures[f"{name}_mean_s"] = float(values.mean())
        for q in (50, 90, 99):
            figures[f"{name}_p{q}_s"] = float(np.percentile(values, q))
    return figures


class Setup(NamedTuple):
    """A recording's requests, the policy that places them as recorded, and the cluster they were recorded on."""

    workload: Workload
    policy: Recorded
    config: ClusterConfig


def set_up(
    recording: dict[str, NDArray[np.float64]], profile: Profile, label: str = "recording", shape: str | None = None
) -> Setup:
    """What plays a recording's requests as they were placed.

    Args:
        recording: columns as `read_recording` gives them.
        profile: machine and model of every node.
        label: of the workload.
        shape: of the cluster; None: no more nodes than the recording names.

    Raises:
        InputError: a request that does not fit the KV capacity of a node.
    """
    if shape is None:
        shape = "{}P{}D".format(*(int(recording[name].max()) + 1 for name in _NODE_COLUMNS))
    prefill_nodes, _ = parse_shape(shape)
    workload = Workload.of(
        recording["arrival_ms"] / 1e3, recording["prompt_tokens"], recording["output_tokens"], label=label
    )
    placements = [
        Placement(int(p), prefill_nodes + int(d))
        for p, d in zip(recording["prefill_node"], recording["decode_node"], strict=True)
    ]
    config = ClusterConfig(
        profile,
        shape=shape,
        kv_block_tokens=_RECORDER_BLOCK_TOKENS,
        max_prompts=_RECORDER_PROMPTS,
        step_budget="fixed",
    )
    capacity = min(Topology(config).kv_capacity_tokens)
    total_tokens = workload.prompt_tokens + workload.output_tokens
    longest = int(total_tokens.argmax())
    if total_tokens[longest] >= capacity:  # it would be rejected
        raise InputError(
            f"request {longest}: {workload.prompt_tokens[longest]} prompt and {workload.output_tokens[longest]} output"
            f" tokens do not fit the KV capacity of a node, {capacity} tokens (requests in order of arrival, from 0)"
        )
    return Setup(workload, Recorded(placements), config)


def with_link(profile: Profile, gb_per_s: float) -> Profile:
    """The profile with the recorder's inter-node link: a bandwidth for each GPU, in 10^9 bytes a second, no latency."""
    link = Link(0.0, gb_per_s * 1e9, "given on the command line").times(int(profile.provenance.get("tp", 1)))
    return replace(profile, inter_node=link)


def held_against(recording: dict[str, NDArray[np.float64]], records: Sequence[RequestRecord]) -> dict[str, object]:
    """Latencies recorded ("reference") and ours ("simulated"), and how far apart single requests are.

    Returns:
        The JSON object of the command but for the speed; its "ttft_correlation" is None where every TTFT is the same.
    """
    output_tokens = recording["output_tokens"]
    several = output_tokens > 1
    first_s = np.array([record.first_token_s for record in records])
    last_s = np.array([record.last_token_s for record in records])
    ttft_s = first_s - recording["arrival_ms"] / 1e3
    reference_ttft_s = (recording["first_token_ms"] - recording["arrival_ms"]) / 1e3
    reference_decode_s = (recording["last_token_ms"] - recording["first_token_ms"]) / 1e3
    gaps = (output_tokens - 1)[several]
    spread = min(np.ptp(ttft_s), np.ptp(reference_ttft_s)) > 0  # else there is no correlation to speak of
    return {
        "reference": _summary(reference_ttft_s, reference_decode_s[several] / gaps),
        "simulated": _summary(ttft_s, (last_s - first_s)[several] / gaps),
        "ttft_error_median": float(np.median(np.abs(ttft_s / reference_ttft_s - 1.0))),
        "ttft_correlation": float(np.corrcoef(ttft_s, reference_ttft_s)[0, 1]) if spread else None,
    }


def replay(path: Path, profile: Profile, link_gb_per_s: float | None = None) -> dict[str, object]:
    """Replay one recording.

    Args:
        path: the recording.
        profile: machines and model it was made for.
        link_gb_per_s: bandwidth of the recording's inter-node link for each GPU, 10^9 bytes a second, without
            latency; None: the profile's own link.

    Returns:
        The JSON object of the command.

    Raises:
        InputError: a bad recording, or a request that does not fit the profile's KV capacity.
    """
    recording = read_recording(path)
    if link_gb_per_s is not None:
        profile = with_link(profile, link_gb_per_s)
    if recording["output_tokens"].max() < 2:
        raise InputError(f"{path}: no request of two tokens or more, so there is no ITL to compare")
    try:
        workload, policy, config = set_up(recording, profile, f"recording {path.name}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    began = perf_counter()
    records = simulate(workload, policy, config).records
    wall_s = perf_counter() - began
    return held_against(recording, records) | {"requests_per_s": len(records) / wall_s}


def print_latencies(result: dict[str, object]) -> None:
    """Print what `held_against` gives as a table."""
    reference, simulated = result["reference"], result["simulated"]
    assert isinstance(reference, dict)
    assert isinstance(simulated, dict)
    print(f"{'':14} {'recorded ms':>12} {'simulated ms':>12} {'error':>8}")
    for name, value in reference.items():
        error = simulated[name] / value - 1.0
        print(f"{name.removesuffix('_s'):14} {value * 1e3:12.3f} {simulated[name] * 1e3:12.3f} {error:+8.2%}")
    print(f"median error of a request's TTFT {result['ttft_error_median']:.2%}")
    correlation = result["ttft_correlation"]
    print(f"correlation of TTFT {'undefined' if correlation is None else format(correlation, '.5f')}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser(prog="python -m experiments.replay", description="Hold the cluster against a recording.")
    parser.add_argument("--recording", type=Path, required=True, help="CSV file of a recording, gzip or plain")
    parser.add_argument("--profile", default="a100-qwen3-8b", help="hardware profile it was made for")
    parser.add_argument(
        "--link-gb-per-s", type=float, default=20.8, help="inter-node bandwidth of the recording a GPU, 10^9 bytes/s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(argv)
    if not 0.0 < arguments.link_gb_per_s < float("inf"):
        raise InputError(f"--link-gb-per-s must be above 0, not {arguments.link_gb_per_s}")
    result = replay(arguments.recording, load_profile(arguments.profile), arguments.link_gb_per_s)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print_latencies(result)
    print(f"{result['requests_per_s']:.0f} requests simulated a second")


if __name__ == "__main__":
    run_main(main)
