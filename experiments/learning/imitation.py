"""The placements of a policy in training requests, for a linear policy that imitates it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agents.linear_policy import COUNTS, Choice, nodes_of
from envs.cluster import ClusterConfig, Placement, Policy, RequestView, RouterView, simulate
from envs.workload import Workload
from experiments.analysis.request_table import DRAIN_S
from experiments.runs.cache import Entry, Result, Task, packed
from experiments.runs.requests import Recipe, made
from policies import PolicySpec


@dataclass(frozen=True)
class ChoicesPlayed(Task):
    """A policy plays requests; the result has each placement, and what a router knew."""

    policy: PolicySpec
    requests: Recipe
    config: ClusterConfig
    seed: int

    def __str__(self) -> str:
        return f"{self.policy.label} on {made(self.requests).label}"

    def inputs(self) -> tuple[Workload, Policy]:
        """The requests and the policy."""
        return made(self.requests), self.policy.make(self.seed)

    def run(self, inputs: tuple[Workload, Policy]) -> Result:
        """Play."""
        workload, policy = inputs
        noted = _Noted(policy)
        simulate(workload, noted, self.config, drain_s=DRAIN_S)
        numbers = {
            "nodes": np.array(noted.nodes),
            "asked": np.array(noted.asked),
            "pairs": np.array(noted.pairs),
        }
        return Result({"choices": len(noted.pairs)}, {".npz": packed(**numbers)})


class _Noted:
    """A policy whose placements are noted."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy
        self.nodes: list[list[list[float]]] = []
        self.asked: list[tuple[int, float]] = []
        self.pairs: list[tuple[int, int]] = []

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request."""
        before = [[node[name] for name in COUNTS] for node in nodes_of(view)]
        placement = self._policy.place(request, view)
        if placement is not None:
            self.nodes.append(before)
            self.asked.append((request.prompt_tokens, request.tbt_slo_s))
            self.pairs.append(placement[:2])
        return placement


def choices_of(entry: Entry) -> Iterator[Choice]:
    """The placements of a run."""
    arrays = entry.arrays(".npz")
    for nodes, (prompt_tokens, tbt_slo_s), (source, target) in zip(
        arrays["nodes"].tolist(), arrays["asked"].tolist(), arrays["pairs"].tolist(), strict=True
    ):
        counts = [dict(zip(COUNTS, node, strict=True)) for node in nodes]
        yield Choice(int(prompt_tokens), tbt_slo_s, counts, (source, target))
