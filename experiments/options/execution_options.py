"""Options that commands share which run policies: the cluster, the SLOs, where runs go, and the folder of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.options.cluster_options import ClusterOptions
from experiments.options.parser import CommandOptions, check_counts, option
from experiments.options.slo_options import SloOptions
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution, Executor
from experiments.runs.fingerprint import digest
from hardware_profiles import InputError
from policies import PolicySpec


@dataclass(frozen=True, repr=False)
class ExecutionOptions:
    """The place where runs go."""

    out: Path | None = option(None, metavar="DIR", help="folder of results (default runs/COMMAND-DIGEST)")
    executor: Executor = option("local", help="where runs go")
    jobs: int | None = option(None, metavar="N", help="runs at a time (default 1, of train 2; with ray two per core)")

    def __post_init__(self) -> None:
        check_counts(self, "jobs")
        Execution(self.jobs, self.executor)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"  # no result depends on them, so they name no folder

    def folder(self, command: str, *identity: object) -> Path:
        """The folder of results: --out, or one that is named for the command and everything that identifies it."""
        return self.out or Path("runs") / f"{command}-{digest(repr(identity))}"

    def cache(self, folder: Path, jobs: int | None = None) -> Cache:
        """The finished runs of a folder of results; `jobs` at a time if --jobs is not given."""
        return Cache(folder / "runs", Execution(self.jobs or jobs, self.executor))


@dataclass(frozen=True, kw_only=True)
class RunOptions(CommandOptions):
    """Base of the options of every command that runs policies on a cluster."""

    machines: ClusterOptions
    slos: SloOptions
    execution: ExecutionOptions


def check_policies(specs: Sequence[PolicySpec]) -> None:
    """Raise InputError if one of these policies cannot be made, or two have one label."""
    for spec in specs:
        spec.make()
    labels = [spec.label for spec in specs]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"two policies are called {twice[0]} in tables; give one of them a LABEL=")
