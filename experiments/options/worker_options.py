"""Options of live workers: the cluster that they are."""

from dataclasses import dataclass

from envs.cluster import ClusterConfig
from experiments.mock_stack.mock_timing import mocked
from experiments.options.parser import option
from hardware_profiles import load_profile


@dataclass(frozen=True)
class WorkerOptions:
    """Mock workers, one per node."""

    workers: str = option("2P2D", metavar="NPMD", help="prefill and decode workers")
    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile, name or path")
    token_budget: int = option(1024, metavar="N", help="tokens per step of an engine; nothing else bounds a step")

    def config(self, *, fitted: bool = True) -> ClusterConfig:
        """The cluster, with the law of a mock engine `fitted` to the profile, or with the profile's own.

        Raises InputError (a shape, profile or budget that cannot be).
        """
        profile = load_profile(self.profile)
        return ClusterConfig(
            mocked(profile) if fitted else profile,
            shape=self.workers,
            token_budget=self.token_budget,
            step_budget="fixed",
            report_age_s=0.0,
        )
