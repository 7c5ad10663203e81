"""One trial: a policy on one workload at one load with one seed, and what is kept of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import nan

from envs.cluster import ClusterConfig, Policy, RunResult, simulate
from envs.workload import Workload
from experiments.analysis.csv_files import packed_rows
from experiments.analysis.metrics import MeasuredRun, measure
from experiments.analysis.outcome import Outcome
from experiments.analysis.request_table import DRAIN_S, WARMUP_SHARE, RequestSummary
from experiments.runs.cache import Cache, Result, Task, packed
from experiments.runs.fingerprint import digest
from experiments.runs.requests import Recipe, made
from policies import PolicySpec

MEASURED = (
    f"the first {WARMUP_SHARE:.0%} of the span of arrivals is warm-up and left out; a run ends at the latest "
    f"{DRAIN_S:g} s after its last arrival"
)


@dataclass(frozen=True)
class Trial(Task):
    """A run to do; `seed` is that of the requests, and of a policy that draws random numbers."""

    policy: PolicySpec
    workload: str
    load: float
    seed: int
    requests: Recipe
    config: ClusterConfig
    keep_requests: bool = True  # what happened to each request is most of what a run takes on disk

    def __str__(self) -> str:
        return f"{self.policy.label} {self.workload} load {self.load:g} seed {self.seed}"

    def inputs(self) -> tuple[Workload, Policy | None]:
        """The requests, and a policy from a file, which may be on this machine alone."""
        return made(self.requests), self.policy.make(self.seed) if self.policy.learned else None

    def run(self, inputs: tuple[Workload, Policy | None]) -> Result:
        """Play and measure."""
        workload, learned = inputs
        policy = learned or self.policy.make(self.seed)
        result = self.play(workload, policy)
        handed_over_share = getattr(policy, "handed_over", nan) / max(1, getattr(policy, "decisions", 1))
        measured = MeasuredRun(result, workload, self.config, handed_over_share)
        records, met = measured.all_records, measured.attainment.both
        files: dict[str, bytes] = {}
        if self.keep_requests:
            rows = packed_rows(self.policy.label, self.workload, self.load, self.seed, records, met)
            files = {".npz": packed(records=records, met=met), ".csv.gz": rows}
        arrived = (records[name].tobytes().hex() for name in ("arrival_s", "prompt_tokens", "output_tokens"))
        value = {
            "label": workload.label,
            "rate_rps": workload.rate_rps,
            "end_s": result.end_s,
            "requests_digest": digest(*arrived),
            "metrics": measure(measured),
            "summary": asdict(RequestSummary.of(records, result.end_s)),
        }
        return Result(value, files)

    def play(self, workload: Workload, policy: Policy) -> RunResult:
        """Simulate the requests under the policy."""
        return simulate(workload, policy, self.config, drain_s=DRAIN_S, time_decisions=True)


def run_trials(trials: Sequence[Trial], cache: Cache) -> list[Outcome]:
    """Run the trials that are not finished yet; returns the outcomes of all of them, in order."""
    return [
        Outcome(
            policy=trial.policy,
            workload=trial.workload,
            load=trial.load,
            seed=trial.seed,
            nominal_rps=trial.requests.nominal_rps,
            path=entry.path.with_suffix(".npz"),
            **{**entry.value, "summary": RequestSummary(**entry.value["summary"])},
        )
        for trial, entry in zip(trials, cache.run(trials), strict=True)
    ]
