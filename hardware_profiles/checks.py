"""Shipped links and profiles compared with measurements that they were not made from, as Markdown tables.

Steps are compared with whole serving systems, whose times include more than the kernels that a profile adds up:
scheduling, sampling, launches from Python.
"""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hardware_profiles.connectors import load_connector
from hardware_profiles.errors import InputError
from hardware_profiles.profile import load_profile
from hardware_profiles.step_law import StepLaw

Array = npt.NDArray[np.float64]

_LINK_FILES = {"rdma": "p2p_inter_node.csv.gz", "nvlink": "p2p_intra_node.csv.gz"}
_SIZE_BANDS = ((2**10, 2**16), (2**16, 2**20), (2**20, 2**26), (2**26, 2**33))
# Whole prompts share a step of up to this many tokens, as in vLLM of early 2024.
_LARGEST_STEP_TOKENS = 8192
# Models measured, GPUs, and the profile whose model has the same shapes except for the vocabulary.
_VLLM_CHECKED = (
    ("meta-llama/Meta-Llama-3-8B", 1, "a100-llama31-8b"),
    ("meta-llama/Llama-2-70b-hf", 4, "a100x4-llama31-70b"),
)


def fitted_link(sent: Array, seconds: Array) -> tuple[float, float]:
    """Latency (s) and bandwidth (bytes/s) that fit best in relative error."""
    design = np.column_stack([np.ones_like(sent), sent]) / seconds[:, None]
    (latency_s, seconds_per_byte), *_ = np.linalg.lstsq(design, np.ones_like(sent))
    return float(latency_s), float(1 / seconds_per_byte)


def link_readings(folder: Path, connector: str) -> tuple[Array, Array]:
    """Bytes sent and median seconds of NCCL send/recv between A100s, for "rdma" or "nvlink"."""
    rows = _rows(folder / _LINK_FILES[connector])
    pairs = [(float(row["bytes_sent_per_rank"]), float(row["ms_median"]) / 1e3) for row in rows]
    sent, seconds = np.array([pair for pair in pairs if pair[0] > 0]).T
    return sent, seconds


def link_table(folder: Path) -> str:
    """Table of the measured links: shipped and fitted constants, and the error of the shipped ones by message size."""
    lines = []
    for connector in _LINK_FILES:
        link = load_connector(connector)
        sent, seconds = link_readings(folder, connector)
        latency_s, bandwidth = fitted_link(sent, seconds)
        error = np.abs((link.latency_s + sent / link.bandwidth_bytes_per_s) / seconds - 1.0) * 100
        bands = [_mean(error[(sent >= low) & (sent < high)]) for low, high in _SIZE_BANDS]
        shipped = f"{link.latency_s * 1e6:.0f} us, {link.bandwidth_bytes_per_s / 1e9:.1f} GB/s"
        fitted = f"{latency_s * 1e6:.0f} us, {bandwidth / 1e9:.1f} GB/s"
        lines.append([connector, str(len(sent)), shipped, fitted, *bands])
    band_names = [f"{_bytes(low)} to {_bytes(high)}" for low, high in _SIZE_BANDS]
    return markdown_table(
        ["link", "readings", "shipped", "fitted", *(f"error %, {band}" for band in band_names)], lines
    )


def host_overhead(folder: Path, gpus: int) -> tuple[float, float]:
    """Host time of vLLM in 2024 with a tensor-parallel group of `gpus`: seconds per step, and per sequence in the step.

    A straight line over the batch size is fitted to the time for scheduling, preparing inputs, sampling and processing
    outputs, over all models measured.
    """
    parts = ("schedule", "prepare_inputs_e2e", "sampler_e2e", "process_model_outputs")
    rows = [row for row in _rows(folder / "cpu_overheads.csv") if int(row["tensor_parallel_degree"]) == gpus]
    batch = np.array([float(row["batch_size"]) for row in rows])
    overhead_ms = np.array([sum(float(row[f"{part}_median"]) for part in parts) for row in rows])
    seq_ms, step_ms = np.polyfit(batch, overhead_ms, 1)
    return float(step_ms) / 1e3, float(seq_ms) / 1e3


def vllm_table(folder: Path) -> str:
    """Compare the end-to-end latency of vLLM on A100s (argonne-lcf/LLM-Inference-Bench) with the sum of its steps."""
    rows = [row for row in _rows(folder / "argonne_vllm_a100.csv") if row["Framework"] == "vLLM"]
    cells = []
    overheads = []
    for model, gpus, name in _VLLM_CHECKED:
        kernels = load_profile(name).kernel_law
        step_s, seq_s = host_overhead(folder, gpus)
        overheads.append(f"{step_s * 1e3:.2f} ms + {seq_s * 1e3:.3f} ms per sequence on {gpus}")
        whole = kernels.with_overhead(step_s=step_s, seq_s=seq_s)
        above: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if (row["Model"], int(row["Num of Hardware"])) == (model, gpus):
                length, batch = int(row["Input Output Length"]), int(row["Batch Size"])
                ratios = [float(row["Latency"]) / batch_s(law, length, length, batch) - 1.0 for law in (kernels, whole)]
                above[batch].append((ratios[0], ratios[1]))
        for batch, found in above.items():
            of_kernels, of_whole = np.array(found).T * 100
            spread = (of_kernels.min(), np.median(of_kernels), of_kernels.max(), np.median(of_whole))
            cells.append([f"{model} on {gpus}", str(batch), str(len(found)), *(f"{figure:+.0f}" for figure in spread)])
    header = [
        "model and GPUs",
        "batch",
        "lengths",
        "lowest %",
        "median %",
        "highest %",
        "median % above kernels and host",
    ]
    title = f"vLLM end to end, above the sum of kernels (host overhead per step, GPUs: {'; '.join(overheads)}):"
    return f"{title}\n\n{markdown_table(header, cells)}"


def batch_s(law: StepLaw, prompt_tokens: int, output_tokens: int, batch: int) -> float:
    """Seconds to prefill `batch` prompts, with as many per step as fit, and then to decode them as one batch."""
    per_step = max(1, _LARGEST_STEP_TOKENS // prompt_tokens)
    full, rest = divmod(batch, per_step)
    prefill_s = full * law.time_s([(prompt_tokens, 0)] * per_step, 0, 0)
    prefill_s += law.time_s([(prompt_tokens, 0)] * rest, 0, 0)
    return prefill_s + law.decode_run_s(output_tokens - 1, batch, batch * (prompt_tokens + 1))


def splitwise_table(folder: Path) -> str:
    """Compare prompt and token times of Llama-2-70B on four A100s (Splitwise, ISCA'24) with steps of Llama-3.1-70B."""
    profile = load_profile("a100x4-llama31-70b")
    times: dict[tuple[int, int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in _rows(folder / "splitwise_perf_model.csv"):
        if (row["model"], row["hardware"], row["tensor_parallel"]) == ("llama2-70b", "a100-80gb", "4"):
            shape = (int(row["prompt_size"]), int(row["batch_size"]), int(row["token_size"]))
            times[shape].append((float(row["prompt_time"]), float(row["token_time"])))
    cells = []
    for (prompt, batch, output), pairs in sorted(times.items()):
        prompt_ms, token_ms = np.median(pairs, axis=0)
        tokens = prompt * batch
        law_ms = [None, profile.step_time_s((), batch, batch * (prompt + output / 2)) * 1e3]
        if tokens <= _LARGEST_STEP_TOKENS:
            law_ms[0] = profile.step_time_s([(prompt, 0)] * batch, 0, 0) * 1e3
        cells.append([str(prompt), str(batch), str(output)])
        for measured_ms, modelled_ms in zip((prompt_ms, token_ms), law_ms, strict=True):
            if modelled_ms is None:
                cells[-1] += [f"{measured_ms:.0f}", "beyond a step", ""]
            else:
                above = f"{100 * (measured_ms / modelled_ms - 1):+.0f}"
                cells[-1] += [f"{measured_ms:.1f}", f"{modelled_ms:.1f}", above]
    header = ["prompt", "batch", "output"]
    for what in ("prompt", "token"):
        header += [f"{what} ms", f"step ms ({what})", f"above % ({what})"]
    return "Llama-2-70B on four A100s (Splitwise) compared with Llama-3.1-70B's steps:\n\n" + markdown_table(
        header, cells
    )


def _rows(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    rows = list(csv.DictReader(text.splitlines()))
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(values: Array) -> str:
    return f"{values.mean():.0f}" if len(values) else "-"


def _bytes(size: int) -> str:
    return next(f"{size >> shift} {unit}" for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if size >> shift)
