"""Replay recorded placements and hold the cluster against the recording, request by request.

    python -m experiments.replay --recording FILE --profile P [--link-gb-per-s 20.8] --json

A recording is a CSV file (gzip or plain) with the columns of NVIDIA AISimulate 0.13's replays: arrival_ms,
prompt_tokens, output_tokens, prefill_node, decode_node, prefill_start_ms, kv_reserved_ms (prefill end),
kv_ready_ms, first_token_ms, last_token_ms. Equal arrivals are served in prefill_start order. ITL is a
request's mean gap, (last token - first token) / (output tokens - 1), over requests of two tokens or more.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, ClusterView, Placement, RequestRecord, RequestView, simulate
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
# How the recorder's workers are set, seen in every prefill and transfer of its recordings: KV moves in blocks of 64
# tokens, and a prefill worker takes one prompt at a time, in chunks of 2048 tokens.
_RECORDER_BLOCK_TOKENS = 64
_RECORDER_PROMPTS = 1


class Recorded:
    """A policy that places each request where it was recorded."""

    name = "recorded"

    def __init__(self, placements: Sequence[Placement]) -> None:
        self._placements = placements

    def place(self, request: RequestView, view: ClusterView) -> Placement:  # noqa: ARG002 - nothing is decided
        """Place one request."""
        return self._placements[request.number]


def read_recording(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a recording, rows in order of arrival and, where that is equal, of prefill start.

    Raises:
        InputError: a missing column or a bad row; names file, line and reason.
    """
    raw = path.read_bytes()
    try:
        lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
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
            rows.append([float(cells[header.index(name)]) for name in COLUMNS])
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    table = np.array(rows)
    for number, row in enumerate(table, start=2):
        whole = row[1:5]
        if not (
            np.isfinite(row).all() and (row >= 0).all() and (whole == np.floor(whole)).all() and whole[:2].min() > 0
        ):
            raise InputError(
                f"{path}:{number}: times and nodes must be 0 or more, tokens and nodes whole, tokens above 0"
            )
    columns = {name: table[:, i] for i, name in enumerate(COLUMNS)}
    order = np.lexsort((columns["prefill_start_ms"], columns["arrival_ms"]))
    return {name: values[order] for name, values in columns.items()}


def _summary(ttft_s: NDArray[np.float64], itl_s: NDArray[np.float64]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, values in (("ttft", ttft_s), ("itl", itl_s)):
        figures[f"{name}_mean_s"] = float(values.mean())
        for q in (50, 90, 99):
            figures[f"{name}_p{q}_s"] = float(np.percentile(values, q))
    return figures


def replay(path: Path, profile: Profile, link_gb_per_s: float | None = None) -> dict[str, object]:
    """Replay one recording.

    Args:
        path: the recording.
        profile: machines and model it was made for.
        link_gb_per_s: bandwidth of the recording's inter-node link, 10^9 bytes a second, without latency;
            None: the profile's own link.

    Returns:
        The JSON object of the command.
    """
    recording = read_recording(path)
    if link_gb_per_s is not None:
        profile = replace(profile, inter_node=Link(0.0, link_gb_per_s * 1e9, "given on the command line"))
    prefill_nodes, decode_nodes = (int(recording[name].max()) + 1 for name in _NODE_COLUMNS)
    requests = len(recording["arrival_ms"])
    prompt_tokens, output_tokens = (recording[name].astype(np.int64) for name in ("prompt_tokens", "output_tokens"))
    workload = Workload(
        arrival_s=recording["arrival_ms"] / 1e3,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        ttft_slo_s=np.full(requests, 2.0),
        tbt_slo_s=np.full(requests, 0.1),
        label=f"recording {path.name}",
    )
    placements = [
        Placement(int(p), prefill_nodes + int(d))
        for p, d in zip(recording["prefill_node"], recording["decode_node"], strict=True)
    ]
    config = ClusterConfig(
        profile,
        shape=f"{prefill_nodes}P{decode_nodes}D",
        kv_block_tokens=_RECORDER_BLOCK_TOKENS,
        max_prompts=_RECORDER_PROMPTS,
    )
    began = perf_counter()
    records: list[RequestRecord] = simulate(workload, Recorded(placements), config).records
    wall_s = perf_counter() - began

    several = output_tokens > 1
    first_s = np.array([record.first_token_s for record in records])
    last_s = np.array([record.last_token_s for record in records])
    ttft_s = first_s - workload.arrival_s
    reference_ttft_s = (recording["first_token_ms"] - recording["arrival_ms"]) / 1e3
    reference_decode_s = (recording["last_token_ms"] - recording["first_token_ms"]) / 1e3
    gaps = (output_tokens - 1)[several]
    return {
        "reference": _summary(reference_ttft_s, reference_decode_s[several] / gaps),
        "simulated": _summary(ttft_s, (last_s - first_s)[several] / gaps),
        "ttft_error_median": float(np.median(np.abs(ttft_s / reference_ttft_s - 1.0))),
        "ttft_correlation": float(np.corrcoef(ttft_s, reference_ttft_s)[0, 1]),
        "requests_per_s": requests / wall_s,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser(prog="python -m experiments.replay", description="Hold the cluster against a recording.")
    parser.add_argument("--recording", type=Path, required=True, help="CSV file of a recording, gzip or plain")
    parser.add_argument("--profile", default="a100-qwen3-8b", help="hardware profile it was made for")
    parser.add_argument(
        "--link-gb-per-s", type=float, default=20.8, help="inter-node bandwidth of the recording, 10^9 bytes/s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(argv)
    if not 0.0 < arguments.link_gb_per_s < float("inf"):
        raise InputError(f"--link-gb-per-s must be above 0, not {arguments.link_gb_per_s}")
    result = replay(arguments.recording, load_profile(arguments.profile), arguments.link_gb_per_s)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    reference, simulated = result["reference"], result["simulated"]
    assert isinstance(reference, dict)
    assert isinstance(simulated, dict)
    print(f"{'':14} {'recorded ms':>12} {'simulated ms':>12} {'error':>8}")
    for name, value in reference.items():
        error = simulated[name] / value - 1.0
        print(f"{name.removesuffix('_s'):14} {value * 1e3:12.3f} {simulated[name] * 1e3:12.3f} {error:+8.2%}")
    print(f"median error of a request's TTFT {result['ttft_error_median']:.2%}")
    print(f"correlation of TTFT {result['ttft_correlation']:.5f}")
    print(f"{result['requests_per_s']:.0f} requests simulated a second")


if __name__ == "__main__":
    run_main(main)
