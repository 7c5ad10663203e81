"""The settings of a mixture of workload families, at multiples of the knees of `static`."""

from collections.abc import Sequence
from pathlib import Path

from envs.cluster import ClusterConfig
from envs.slos import Slos
from experiments.analysis.bootstrap import Interval
from experiments.learning.mixture import Setting, tbt_ranges
from experiments.runs.cache import Cache
from experiments.runs.known_knees import read_knees
from experiments.runs.requests import Family
from experiments.runs.saturation import intervals, knees


def family_settings(
    families: Sequence[str],
    configs: Sequence[ClusterConfig],
    slos: Sequence[Slos],
    cache: Cache,
    known: Path | None = None,
) -> dict[Setting, Interval]:
    """The setting of each family, cluster and TBT SLO, with its knee.

    Args:
        families: names of workload families.
        configs: the clusters, of different shapes.
        slos: SLOs that differ in the TBT SLO; if there are several, training draws it from the ranges around them.
        cache: runs the searches for knees.
        known: where the knees are known from, see `read_knees`; None: they are searched for.

    Raises:
        InputError: there is no such knee.
    """
    tbt_slos_s = [one.classes[0].tbt_s for one in slos]
    found = {}
    for one, tbt_slo_s, tbt_range_s in zip(slos, tbt_slos_s, tbt_ranges(tbt_slos_s), strict=True):
        for config in configs:
            more = [config.shape] if len(configs) > 1 else []
            if len(slos) > 1:
                more.append(f"{1e3 * tbt_slo_s:g} ms")
            rates = (
                read_knees(known, families, config, one) if known else intervals(knees(families, one, config, cache))
            )
            for name, knee in rates.items():
                source = Family(name, knee.value, one, tbt_range_s=tbt_range_s)
                found[Setting(" ".join([name, *more]), source, config)] = knee
    return found
