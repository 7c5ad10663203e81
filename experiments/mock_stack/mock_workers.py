"""Mock workers: one engine of Dynamo per node, with the step times of a profile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def mock_workers(config: ClusterConfig, folder: Path, speedup: float = 1.0) -> Iterator[list[Child]]:
    """Start one mock worker per node of a cluster, with the step law of `mock_timing`; end them at the exit.

    Args:
        config: the cluster.
        folder: an empty folder for their files and logs, and for the model folder.
        speedup: factor on the speed of the engines.

    Raises:
        InputError: a worker did not start.
    """
    write_model_folder(folder / "model", LONGEST_CONTEXT)
    capacity = config.profile.kv_capacity_tokens
    tables = MockLaw.of(config.profile.law).tables(config.token_budget, capacity, LONGEST_CONTEXT)
    np.savez(folder / "timing.npz", **tables)  # type: ignore[arg-type]
    engine = {
        "backend": "vllm",
        "worker_type": "aggregated",
        "num_gpu_blocks": capacity // BLOCK_TOKENS,
        "block_size": BLOCK_TOKENS,
        "max_num_batched_tokens": config.token_budget,
        "max_num_seqs": config.max_seqs,
        "enable_prefix_caching": True,
        "speedup_ratio": speedup,
        "timing_model": {
            "type": "external",
            "provider": "dynamo_profile",
            "config": {"path": str(folder / "timing.npz")},
        },
    }
    nodes = range(sum(parse_shape(config.shape)))
    jobs = {f"node{node}": MockWorker(endpoint(node), str(folder / "model"), MODEL, engine) for node in nodes}
    with children(folder, jobs) as started:
        yield list(started.values())
