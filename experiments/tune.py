"""Tune a heuristic's knobs on requests that nothing is evaluated on.

The setting with the least cost, the cost that learned policies minimise, among those whose SLO attainment is within
a point of the best: a gap that exceeds its SLO by a hair costs next to nothing and is a miss all the same.
"""

import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

import policies
from agents.processes import finished
from envs.cluster import ClusterConfig, simulate
from envs.workload import Workload

KAIROS_GRID = {"alpha": (1.0, 1.3, 2.0), "beta": (0.9, 1.0), "cap": (1, 2, 4)}
"""Knobs of `kairos` that are tried: its published alpha, beta and cap among them."""


ATTAINMENT_MARGIN = 0.01


class Tried(NamedTuple):
    """What a setting gave: cost a request, and share of requests that met both SLOs."""

    cost: float
    attainment: float


class _Trial(NamedTuple):
    policy: str
    workload: Workload
    config: ClusterConfig
    tail_weight: float


def measure(policy: str, workload: Workload, config: ClusterConfig, tail_weight: float = 0.0) -> Tried:
    """SLO attainment and the environment's cost a request: TTFT / SLO, its square weighted, TBT excess.

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
    longest_s = np.array([record.tbt_max_s for record in result.records])
    return Tried(
        float((waited + tail_weight * waited * waited).mean() + excess / len(workload)),
        float(((waited <= 1.0) & (longest_s <= slo_s)).mean()),
    )


def _measure(trial: _Trial) -> Tried:
    return measure(*trial)


def tuned_kairos(
    workloads: Sequence[Workload], config: ClusterConfig, *, tail_weight: float = 0.0, jobs: int = 1
) -> tuple[str, dict[str, Tried]]:
    """The best knobs of `kairos` on the mean over `workloads`; see the module's text for what is best.

    Returns:
        The policy's name with its knobs, and what every setting tried gave, by name.
    """
    names = [
        "kairos:" + ",".join(f"{knob}={value}" for knob, value in zip(KAIROS_GRID, values, strict=True))
        for values in product(*KAIROS_GRID.values())
    ]
    trials = [_Trial(name, workload, config, tail_weight) for name in names for workload in workloads]
    found: dict[str, list[Tried]] = {name: [] for name in names}
    for done, (trial, tried) in enumerate(finished(_measure, trials, jobs), start=1):
        found[trial.policy].append(tried)
        if done % len(workloads) == 0:
            print(f"\rtuning kairos: {done}/{len(trials)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    means = {name: Tried(*np.mean(several, axis=0).tolist()) for name, several in found.items()}
    enough = max(tried.attainment for tried in means.values()) - ATTAINMENT_MARGIN
    good = [name for name, tried in means.items() if tried.attainment >= enough]
    return min(good, key=lambda name: means[name].cost), means
