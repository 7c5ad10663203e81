"""Runs whose numbers are what a test says, for what is computed from a reproduction."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments import metrics
from experiments.cells import Cell, Outcome
from experiments.estimates import Runs
from experiments.metrics import Metrics
from experiments.reproduce.evidence import Evidence, Place
from experiments.reproduce.settings import Setting
from experiments.tally import Tally
from tests.experiments.made_up import CONFIG, record, run, workload

RDMA = Setting("a100-qwen3-8b", "rdma")
SLOW = Setting("a100-qwen3-8b", "small-descriptors")
TUNED = "kairos-tuned=kairos:beta=0.9"

_RECORDS = [record(i, 0.5 * i, (0.1, 0.2, 0.05, 0.05)) for i in range(30)]
_METRICS = metrics.measure(run(_RECORDS), workload(_RECORDS), CONFIG)


def made_up_metrics(**numbers: float) -> Metrics:
    """Metrics of some run with these numbers in place of its own."""
    return replace(_METRICS, **numbers)  # type: ignore[arg-type] - each is of its field's type


def made_up_runs(
    columns: Mapping[str, Sequence[float]],
    *,
    policy: str = "static",
    parts_s: Sequence[float] = (0.6, 0.2, 0.1, 0.1),
    prompt_tokens: float = 1000.0,
    tail_prompt_tokens: float = 3000.0,
) -> Runs:
    """A run a seed, with a value of each column for each."""
    seeds = range(len(next(iter(columns.values()))))
    return Runs(
        [
            Outcome(
                Cell(policy, "burst", 1.0, seed),
                made_up_metrics(**{name: values[seed] for name, values in columns.items()}),
                Tally(f"requests {seed}", list(parts_s), [1], [0], prompt_tokens, tail_prompt_tokens),
                "made up",
                1.0,
                100.0,
                Path(),
            )
            for seed in seeds
        ]
    )


def made_up_evidence(groups: Mapping[Place, Mapping[str, Runs]], loads: Sequence[float] = (0.7, 0.95)) -> Evidence:
    """Evidence of these runs; the tuned rule is TUNED everywhere."""
    settings = {place.setting.plain for place in groups}
    seeds = min(len(runs.outcomes) for group in groups.values() for runs in group.values())
    return Evidence(
        {place: dict(group) for place, group in groups.items()},
        ("static", "kairos"),
        dict.fromkeys(settings, TUNED),
        {place[:2]: 10.0 for place in groups},
        tuple(loads),
        seeds,
    )
