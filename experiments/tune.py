"""Tune a heuristic's knobs on requests that nothing is evaluated on, by the cost that learned policies minimise."""

import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

import policies
from envs.cluster import ClusterConfig, simulate
from envs.workload import Workload
from experiments.processes import finished

KAIROS_GRID = {"alpha": (1.0, 1.3, 2.0), "beta": (0.9, 1.0), "cap": (1, 2, 4)}
"""Knobs of `kairos` that are tried: its published alpha, beta and cap among them."""


class _Trial(NamedTuple):
    policy: str
    workload: Workload
    config: ClusterConfig
    tail_weight: float


def cost(policy: str, workload: Workload, config: ClusterConfig, tail_weight: float = 0.0) -> float:
    """The environment's cost a request: TTFT / SLO, its square weighted, and the sum of max(0, gap / SLO - 1).

    The workload's TBT SLO must be one for all requests: gaps are logged by step, not by request.
    """
    result = simulate(workload, policies.make(policy), config)
    ttft_s = np.array([record.first_token_s - record.arrival_s for record in result.records])
    slo_s = float(workload.tbt_slo_s[0])
    _, steps, first_s, growth_s, weight = result.gaps.columns().T
    # Only segments whose longest gap exceeds the SLO are expanded.
    over = first_s + np.maximum(0.0, (steps - 1) * growth_s) > slo_s
    excess = 0.0
    for count, first, growth, sequences in zip(
        steps[over].astype(int), first_s[over], growth_s[over], weight[over], strict=True
    ):
        gaps_s = first + growth * np.arange(count)
        excess += float(sequences * np.maximum(0.0, gaps_s / slo_s - 1.0).sum())
    waited = ttft_s / workload.ttft_slo_s
    return float((waited + tail_weight * waited * waited).mean() + excess / len(workload))


def _cost(trial: _Trial) -> float:
    return cost(*trial)


def tuned_kairos(
    workloads: Sequence[Workload], config: ClusterConfig, *, tail_weight: float = 0.0, jobs: int = 1
) -> tuple[str, dict[str, float]]:
    """The knobs of `kairos` with the least mean cost over `workloads`.

    Returns:
        The policy's name with its knobs, and the mean cost of every setting tried by name.
    """
    names = [
        "kairos:" + ",".join(f"{knob}={value}" for knob, value in zip(KAIROS_GRID, values, strict=True))
        for values in product(*KAIROS_GRID.values())
    ]
    trials = [_Trial(name, workload, config, tail_weight) for name in names for workload in workloads]
    costs: dict[str, list[float]] = {name: [] for name in names}
    for done, (trial, found) in enumerate(finished(_cost, trials, jobs), start=1):
        costs[trial.policy].append(found)
        if done % len(workloads) == 0:
            print(f"\rtuning kairos: {done}/{len(trials)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    means = {name: float(np.mean(found)) for name, found in costs.items()}
    return min(means, key=means.__getitem__), means
