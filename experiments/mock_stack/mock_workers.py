"""Mock workers: one engine of Dynamo per node."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from envs.cluster import ClusterConfig, parse_shape
from experiments.mock_stack.child_processes import Child, children
from experiments.mock_stack.dynamo_process import MockWorker
from experiments.mock_stack.mock_timing import BLOCK_TOKENS, MockLaw
from experiments.mock_stack.model_folder import MODEL, write_model_folder

LONGEST_CONTEXT = 131_072


def endpoint(node: int) -> str:
    """The Dynamo endpoint of a node's worker."""
    return f"placement.node{node}.generate"


Timing = Literal["profile", "aisimulate"]
"""The source of the engines' step times: a profile (`mock_timing`), or NVIDIA AISimulate's tables of the same machine
and model, which must be installed."""


@contextmanager
def mock_workers(
    config: ClusterConfig, folder: Path, timing: Timing = "profile", speedup: float = 1.0
) -> Iterator[list[Child]]:
    """Start one mock worker per node of a cluster; end them at the exit.

    Args:
        config: the cluster.
        folder: an empty folder for their files and logs, and for the model folder.
        timing: the source of their step times.
        speedup: factor on the speed of the engines.

    Raises:
        InputError: a worker did not start.
    """
    write_model_folder(folder / "model", LONGEST_CONTEXT)
    capacity = config.profile.kv_capacity_tokens
    engine = {
        "backend": "vllm",
        "worker_type": "aggregated",
        "num_gpu_blocks": capacity // BLOCK_TOKENS,
        "block_size": BLOCK_TOKENS,
        "max_num_batched_tokens": config.token_budget,
        "max_num_seqs": config.max_seqs,
        "enable_prefix_caching": True,
        "speedup_ratio": speedup,
        "timing_model": {"type": "external", **_timing_model(config, folder, timing)},
    }
    nodes = range(sum(parse_shape(config.shape)))
    jobs = {f"node{node}": MockWorker(endpoint(node), str(folder / "model"), MODEL, engine) for node in nodes}
    with children(folder, jobs) as started:
        yield list(started.values())


def _timing_model(config: ClusterConfig, folder: Path, timing: Timing) -> dict[str, object]:
    profile = config.profile
    if timing == "aisimulate":
        made_of = profile.provenance
        machine = {
            "model": profile.model,
            "backend": made_of["backend"],
            "system": made_of["system"],
            "tp": made_of["tp"],
        }
        return {"provider": "ais", "config": {**machine, "worker_type": "aggregated"}}
    path = folder / "timing.npz"
    tables = MockLaw.of(profile.law).tables(config.token_budget, profile.kv_capacity_tokens, LONGEST_CONTEXT)
    np.savez(path, **tables)  # type: ignore[arg-type]
    return {"provider": "dynamo_profile", "config": {"path": str(path)}}
