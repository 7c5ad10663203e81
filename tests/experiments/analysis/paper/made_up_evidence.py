"""Evidence whose numbers are given by a test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.analysis.metrics import METRIC
from experiments.analysis.outcome import Outcome
from experiments.analysis.paper.paper_evidence import KAIROS, TUNED, Evidence, Place, SeedRuns, Setting
from experiments.analysis.request_table import RequestSummary
from policies import PolicySpec

RDMA = Setting("a100-qwen3-8b", "rdma")
SLOW = Setting("a100-qwen3-8b", "small-descriptors")
TUNED_SPEC = PolicySpec.parse(f"{TUNED}=kairos:beta=0.9")

Group = dict[str, SeedRuns]


def made_up_runs(policy: str, columns: Mapping[str, Sequence[float]]) -> SeedRuns:
    """One run per seed with these metrics; its prompts have 1,000 tokens, and 3,000 around P95."""
    return SeedRuns(
        [
            Outcome(
                policy=PolicySpec.parse(policy),
                workload="burst",
                load=1.0,
                seed=seed,
                metrics=dict.fromkeys(METRIC, 0.5) | dict(zip(columns, numbers, strict=True)),
                summary=RequestSummary([1.0, 0.6, 0.3, 0.1], [1], [0], 1000.0, 3000.0),
                label="made up",
                nominal_rps=1.0,
                rate_rps=1.0,
                end_s=100.0,
                requests_digest=f"requests {seed}",
                path=Path("nowhere"),
            )
            for seed, numbers in enumerate(zip(*columns.values(), strict=True))
        ]
    )


def made_up_group(
    static_s: Sequence[float], kairos_s: Sequence[float], static_met: float = 0.5, kairos_met: float = 0.9
) -> Group:
    """P95 TTFT of each seed and attainment of static and kairos; tuned kairos meets the SLOs of all requests."""
    seeds = len(static_s)

    def runs(policy: str, p95_s: Sequence[float], met: float) -> SeedRuns:
        columns = {
            "ttft_p95_s": p95_s,
            "slo_attainment": [met] * seeds,
            "ttft_attainment": [1.0] * seeds,
            "decision_us_p50": [10.0] * seeds,
            "decision_us_p99": [50.0] * seeds,
        }
        return made_up_runs(policy, columns)

    return {
        "static": runs("static", static_s, static_met),
        KAIROS: runs(KAIROS, kairos_s, kairos_met),
        TUNED: runs(str(TUNED_SPEC), kairos_s, 1.0),
    }


def made_up_shares(**shares: float) -> Group:
    """Parts of the P95 TTFT of static as shares of it, in three seeds."""
    return {"static": made_up_runs("static", {f"{part}_share_p95": [share] * 3 for part, share in shares.items()})}


def made_up_evidence(groups: Mapping[Place, Group], loads: Sequence[float] = (0.7, 0.95)) -> Evidence:
    """Evidence of these runs; every family that occurs is a main one."""
    machines = tuple(dict.fromkeys(place.setting.plain for place in groups))
    return Evidence(
        groups=groups,
        rules=("static", KAIROS, TUNED),
        tuned=dict.fromkeys(machines, TUNED_SPEC),
        knees={place[:2]: 10.0 for place in groups},
        machines=machines,
        families=tuple(dict.fromkeys(place.family for place in groups)),
        loads=tuple(loads),
        seeds=min(len(runs.outcomes) for group in groups.values() for runs in group.values()),
    )
