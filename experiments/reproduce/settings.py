"""The clusters that `experiments.reproduce` runs on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from envs.cluster import ClusterConfig, parse_shape
from hardware_profiles import load_profile

STARVED = ("1P3D", "3P1D")
SLOW_SPEED = 0.6
"""Of the slower decode node of the heterogeneous cluster, relative to the others; ours."""


@dataclass(frozen=True)
class Setting:
    """A cluster.

    Attributes:
        profile: of every node.
        connector: what KV moves over between nodes.
        shape: prefill and decode nodes; that of arXiv 2607.02043 by default.
        slow_decode: the last decode node runs at SLOW_SPEED.
        report_age_s: age of node reports, seconds.
    """

    profile: str
    connector: str
    shape: str = "2P2D"
    slow_decode: bool = False
    report_age_s: float = 0.1

    def __str__(self) -> str:
        """Its name in tables."""
        return f"{self.machine}, {self.kind}"

    @property
    def machine(self) -> str:
        """Profile and link."""
        return f"{self.profile}, {self.connector}"

    @property
    def kind(self) -> str:
        """Shape and speeds."""
        return f"{self.shape}, one decode node at {SLOW_SPEED:g}" if self.slow_decode else self.shape

    @property
    def plain(self) -> "Setting":
        """The same machine and link in the default shape: what knobs are tuned on."""
        return Setting(self.profile, self.connector)

    @property
    def config(self) -> ClusterConfig:
        """The cluster itself.

        Raises:
            InputError: no such profile, connector or shape.
        """
        return _config(self)

    def check(self) -> None:
        """Refuse a cluster that cannot be made.

        Raises:
            InputError: no such profile, connector or shape.
        """
        _config(self)


@cache
def _config(setting: Setting) -> ClusterConfig:
    profile = load_profile(setting.profile).with_connector(setting.connector)
    nodes = sum(parse_shape(setting.shape))
    speeds = (*[1.0] * (nodes - 1), SLOW_SPEED) if setting.slow_decode else None
    # The paper's engine: a fixed token budget, and chunks that the router plans.
    return ClusterConfig(
        profile,
        shape=setting.shape,
        node_speeds=speeds,
        report_age_s=setting.report_age_s,
        step_budget="fixed",
    )


def every_machine(profiles: Sequence[str], connectors: Sequence[str]) -> list[Setting]:
    """Each profile over each link, in the default shape."""
    return [Setting(profile, connector) for profile in profiles for connector in connectors]


def stressed(settings: Sequence[Setting]) -> list[Setting]:
    """Each setting in starved shapes, and with unlike decode nodes."""
    return [
        made
        for setting in settings
        for made in [*(replace(setting, shape=shape) for shape in STARVED), replace(setting, slow_decode=True)]
    ]
