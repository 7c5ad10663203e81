"""Recordings of another simulator's runs, replayed with their placements, and compared request by request.

A recording is a CSV file (gzip or plain) with the columns of NVIDIA AISimulate 0.13's replays: arrival_ms,
prompt_tokens, output_tokens, prefill_node, decode_node, prefill_start_ms, kv_reserved_ms (prefill end), kv_ready_ms,
first_token_ms, last_token_ms. Equal arrivals are served in prefill_start order. ITL is a request's mean gap, (last
token - first token) / (output tokens - 1), over requests of two tokens or more.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, Placement, RequestRecord, RequestView, RouterView, Topology
from envs.cluster.config import parse_shape
from envs.workload import Workload
from hardware_profiles import InputError, Link, Profile

Floats = NDArray[np.float64]
Recording = dict[str, Floats]
"""Columns of a recording by name, rows in order of arrival."""
COLUMNS = (
    "arrival_ms", "prompt_tokens", "output_tokens", "prefill_node", "decode_node", "prefill_start_ms",
    "first_token_ms", "last_token_ms",
)  # fmt: skip
_NODE_COLUMNS = ("prefill_node", "decode_node")
_MOST_NODE = 998  # a cluster shape names at most 999 nodes of a role
_MOST_TOKENS = 10**9  # of one request; a number above it is a slip, not a length
# The settings of the recorder's workers, seen in every prefill and transfer of its recordings: KV moves in blocks of 64
# tokens, and a prefill worker takes one prompt at a time, in chunks of 2048 tokens.
_RECORDER: Any = {"kv_block_tokens": 64, "max_prompts": 1}


@dataclass
class Recorded:
    """A policy that places each request where it was recorded."""

    placements: Sequence[Placement]
    name: str = "recorded"

    def place(self, request: RequestView, view: RouterView) -> Placement:  # noqa: ARG002 - nothing is decided
        """Place one request."""
        return self.placements[request.number]


def _fault(row: Sequence[float]) -> str | None:
    """The mistake in a row, its values in the order of COLUMNS; None if there is none."""
    arrival_ms, *counts, prefill_start_ms, first_token_ms, last_token_ms = row
    if not all(0 <= value < inf for value in row) or any(value % 1 for value in counts) or not all(counts[:2]):
        return "times and nodes must be 0 or more, tokens and nodes whole, tokens above 0"
    for name, value in zip(COLUMNS[1:5], counts, strict=True):
        most = _MOST_NODE if name in _NODE_COLUMNS else _MOST_TOKENS
        if value > most:
            return f"{name} {value:g} is above {most}"
    if not arrival_ms <= prefill_start_ms <= first_token_ms <= last_token_ms:
        return "arrival, prefill start, first token and last token are out of order"
    if first_token_ms == arrival_ms:
        return "the first token is as early as the arrival"
    if counts[1] > 1 and last_token_ms == first_token_ms:
        return "the last token is as early as the first"
    return None


def read_recording(path: Path) -> Recording:
    """Read a recording; an InputError names file, line and reason."""
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
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} values, the header names {len(header)} columns")
            rows.append([float(cells[header.index(name)]) for name in COLUMNS])
            if fault := _fault(rows[-1]):
                raise ValueError(fault)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    return in_order(dict(zip(COLUMNS, np.array(rows).T, strict=True)))


def in_order(columns: Recording) -> Recording:
    """The rows of a recording in order of arrival and, if that is equal, of prefill start."""
    order = np.lexsort((columns["prefill_start_ms"], columns["arrival_ms"]))
    return {name: values[order] for name, values in columns.items()}


def _summary(ttft_s: Floats, decode_s: Floats, gaps: Floats) -> dict[str, float]:
    """Means and percentiles of TTFT and, of requests with gaps, of ITL."""
    several = gaps > 0
    figures: dict[str, float] = {}
    for name, values in (("ttft", ttft_s), ("itl", decode_s[several] / gaps[several])):
        figures[f"{name}_mean_s"] = float(values.mean())
        figures |= {f"{name}_p{q}_s": float(np.percentile(values, q)) for q in (50, 90, 99)}
    return figures


class Setup(NamedTuple):
    """A recording's requests, the policy that places them as recorded, and the cluster they were recorded on."""

    workload: Workload
    policy: Recorded
    config: ClusterConfig


def set_up(recording: Recording, profile: Profile, label: str = "recording", shape: str | None = None) -> Setup:
    """All that is needed to play a recording's requests as they were placed.

    Without `shape` the cluster has no more nodes than the recording names. An InputError if a request does not fit the
    KV capacity of a node.
    """
    if shape is None:
        shape = "{}P{}D".format(*(int(recording[name].max()) + 1 for name in _NODE_COLUMNS))
    prefill_nodes, _ = parse_shape(shape)
    arrival_s, prompts, outputs = recording["arrival_ms"] / 1e3, recording["prompt_tokens"], recording["output_tokens"]
    workload = Workload.of(arrival_s, prompts, outputs, label=label)
    nodes = zip(*(recording[name].astype(int).tolist() for name in _NODE_COLUMNS), strict=True)
    placements = [Placement(prefill, prefill_nodes + decode) for prefill, decode in nodes]
    config = ClusterConfig(profile, shape=shape, step_budget="fixed", **_RECORDER)
    capacity = min(Topology(config).kv_capacity_tokens)
    longest = int((prompts + outputs).argmax())
    if prompts[longest] + outputs[longest] >= capacity:  # it would be rejected
        raise InputError(
            f"request {longest}: {prompts[longest]:.0f} prompt and {outputs[longest]:.0f} output tokens do not fit the "
            f"KV capacity of a node, {capacity} tokens (requests in order of arrival, from 0)"
        )
    return Setup(workload, Recorded(placements), config)


def with_link(profile: Profile, gb_per_s: float) -> Profile:
    """The profile with the recorder's inter-node link: a bandwidth per GPU, in 10^9 bytes per second, no latency."""
    link = Link(0.0, gb_per_s * 1e9, "given on the command line").times(int(profile.provenance.get("tp", 1)))
    return replace(profile, inter_node=link)


def compare_latencies(recording: Recording, records: Sequence[RequestRecord]) -> dict[str, Any]:
    """The JSON object of `experiments.replay` except the speed.

    It has the latencies of the recording ("reference") and of this cluster ("simulated"), and the error of single
    requests; "ttft_correlation" is None if every TTFT is the same.
    """
    gaps = recording["output_tokens"] - 1
    arrival_ms, first_ms, last_ms = (recording[name] for name in ("arrival_ms", "first_token_ms", "last_token_ms"))
    first_s, last_s = np.array([(record.first_token_s, record.last_token_s) for record in records]).T
    reference_s, ttft_s = (first_ms - arrival_ms) / 1e3, first_s - arrival_ms / 1e3
    spread = min(np.ptp(ttft_s), np.ptp(reference_s)) > 0  # else a correlation is undefined
    return {
        "reference": _summary(reference_s, (last_ms - first_ms) / 1e3, gaps),
        "simulated": _summary(ttft_s, last_s - first_s, gaps),
        "ttft_error_median": float(np.median(np.abs(ttft_s / reference_s - 1.0))),
        "ttft_correlation": float(np.corrcoef(ttft_s, reference_s)[0, 1]) if spread else None,
    }


def latency_table(found: Mapping[str, Any]) -> str:
    """The result of `compare_latencies` as text."""
    lines = [f"{'':14} {'recorded ms':>12} {'simulated ms':>12} {'error':>8}"]
    for name, value in found["reference"].items():
        simulated = found["simulated"][name]
        cells = f"{value * 1e3:12.3f} {simulated * 1e3:12.3f} {simulated / value - 1.0:+8.2%}"
        lines.append(f"{name.removesuffix('_s'):14} {cells}")
    correlation = found["ttft_correlation"]
    lines.append(f"median error of a request's TTFT {found['ttft_error_median']:.2%}")
    lines.append(f"correlation of TTFT {'undefined' if correlation is None else format(correlation, '.5f')}")
    return "\n".join(lines)
