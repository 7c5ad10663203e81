"""Knees of `static` that are known already: of a knees.json, or of the settings that ship."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from envs.cluster import ClusterConfig, parse_shape
from envs.slos import Slos
from experiments.analysis.bootstrap import Interval
from experiments.runs.tuning import SHIPPED, TunedSettings
from hardware_profiles import InputError


def read_knees(path: Path, families: Iterable[str], config: ClusterConfig, slos: Slos) -> dict[str, Interval]:
    """Read the knees of families from knees.json, times the nodes of `config` over those of the file's cluster.

    So a cluster of another shape gets the same rate per node: a single prefill node says little about what four nodes
    can serve. "shipped" stands for the rates of the shipped settings for these SLOs under the step budget `slo`, which
    are those of docs/protocol.md; the file has no intervals, so both ends are the knee.

    Raises:
        InputError: the file is no knees.json, or lacks a family; or nothing ships for this profile and these SLOs.
    """
    cluster, found = _shipped_knees(config, slos) if str(path) == "shipped" else _knees_of_file(path)
    factor = sum(parse_shape(config.shape)) / sum(parse_shape(cluster))
    for family in families:
        if family not in found:
            raise InputError(f"{path}: has no knee of {family}; it has those of {', '.join(found)}")
    return {family: Interval(*(factor * bound for bound in found[family])) for family in families}


def _knees_of_file(path: Path) -> tuple[str, dict[str, Interval]]:
    try:
        contents = json.loads(path.read_bytes())
        parse_shape(contents["cluster"])
        return contents["cluster"], {name: Interval(**knee) for name, knee in contents["knees_rps"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: not a knees.json of experiments.compare, or a damaged one") from None


def _shipped_knees(config: ClusterConfig, slos: Slos) -> tuple[str, dict[str, Interval]]:
    tuned = TunedSettings.read_for(SHIPPED, replace(config, step_budget="slo"), slos, any_shape=True).contents
    return tuned["cluster"], {name: Interval(rate, rate, rate) for name, rate in tuned["knees_rps"].items()}
