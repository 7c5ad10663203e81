"""Text that the reports on the virtual best have in common."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

from experiments.analysis.folders.virtual_best import Portfolio
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.reports.columns import bullets, code, plain
from experiments.reports.document import commit

RULE = (
    "The virtual best of a cell (a workload at a load under a TBT SLO) is the rule and step budget with the lowest "
    f"mean P95 TTFT among those within {100 * ATTAINMENT_MARGIN:g} point of the highest mean SLO attainment."
)
"""How it is chosen."""


def slo_ms(tbt_slo_s: float) -> str:
    """A TBT SLO in milliseconds, with the unit."""
    return f"{1e3 * tbt_slo_s:g} ms"


def made_by(typed: str, portfolio: Portfolio, seeds: Sequence[int]) -> str:
    """Lines on where the numbers of a report come from."""
    return bullets([
        f"command {code(typed)}",
        f"commit {code(commit())}; Python {platform.python_version()}, NumPy {version('numpy')}",
        f"cluster {plain(str(portfolio.options.get('cluster')))} of {code(str(portfolio.options.get('profile')))}",
        f"seeds {min(seeds)} to {max(seeds)}",
    ])  # fmt: skip
