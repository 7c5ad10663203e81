"""Trials on live workers, and their simulated counterparts."""

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from envs.cluster import Placement, Policy, RequestView, RouterView, RunResult
from envs.workload import Workload
from experiments.mock_stack.mock_workers import Timing
from experiments.runs.cache import Result
from experiments.runs.executors import in_process
from experiments.runs.trial import Trial
from experiments.serving.live_router import without_plan
from experiments.serving.live_run import play_live


@dataclass(frozen=True)
class LiveTrial(Trial):
    """A trial in real time on mock workers; `speedup` seconds of the workload pass in a real one."""

    timing: Timing = "profile"
    speedup: float = 1.0

    def run(self, inputs: tuple[Workload, Policy | None]) -> Result:
        """Play in a new process, because threads of Dynamo outlive its runtime."""
        with tempfile.TemporaryDirectory(prefix="placement-", ignore_cleanup_errors=True) as folder:
            return in_process(_play, (self, inputs, Path(folder)))


def _play(job: tuple[LiveTrial, tuple[Workload, Policy | None], Path]) -> Result:
    trial, inputs, folder = job
    return Trial.run(_OnWorkers(**{one.name: getattr(trial, one.name) for one in fields(trial)}, folder=folder), inputs)


@dataclass(frozen=True)
class _OnWorkers(LiveTrial):
    """A live trial in the process that plays it; workers keep their files in `folder`."""

    folder: Path = Path()

    def play(self, workload: Workload, policy: Policy) -> RunResult:
        """Play the requests on live workers."""
        return play_live(workload, policy, self.config, self.folder, self.timing, self.speedup)


@dataclass(frozen=True)
class SimulatedTrial(Trial):
    """The same trial in simulation, with engines that know no chunk plans."""

    def play(self, workload: Workload, policy: Policy) -> RunResult:
        """Simulate the requests."""
        return super().play(workload, _WithoutPlans(policy))


class _WithoutPlans:
    """A policy without its chunk plans and splits, which `serving.live_router` drops as well."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request."""
        placement = self._policy.place(request, view)
        return placement and without_plan(placement)
