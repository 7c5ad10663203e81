"""Folders as `experiments.compare` leaves them, with results made up by hand."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policies import PolicySpec

SEEDS = 6
SHARES = (0.7, 0.2)
"""Shares of the requests on one node, and on one prefill node."""
Measured = tuple[float, float]
"""P95 TTFT in seconds, and SLO attainment."""
RULES: dict[str, Measured] = {"static": (2.0, 1.0), "kairos": (1.0, 0.995), "colocated": (0.5, 0.9)}


def steady(measured: Measured, seed: int) -> Measured:
    """Every rule's P95 TTFT varies with the seed alike, so that paired ratios do not vary."""
    return measured[0] * (1 + 0.1 * seed), measured[1]


def write_folder(
    path: Path,
    rules: Mapping[str, Measured] = RULES,
    *,
    at_seed: Callable[[Measured, int], Measured] = steady,
    measure: Callable[[str, str, float, int], Measured] | None = None,
    rate_rps: float = 5.0,
    **options: Any,
) -> Path:
    """A folder as experiments.compare leaves it, as far as other commands read it.

    `measure` gives a result by label, workload, load and seed instead of `rules` and `at_seed`.
    """
    given = {
        "workload": ["HPLD", "burst"],
        "loads": [0.7, 1.05],
        "seeds": SEEDS,
        "cluster": "2P2D",
        "first_seed": 0,
        **options,
    }
    seeds = list(range(given["first_seed"], given["first_seed"] + given["seeds"]))
    command = {
        "command": "compare",
        "options": {
            "typed": str(path),
            "policies": list(rules),
            "tuned": None,
            "requests": {"workload": given["workload"], "trace": None, "requests": None},
            "cluster": given["cluster"],
            "machines": {
                "profile": given.get("profile", "toy"),
                "step_budget": given.get("step_budget", "slo"),
                "report_age_ms": 100.0,
            },
            "slos": {"ttft_slo": 2.0, "tbt_slo": given.get("tbt_slo", 0.1), "slo_class": given.get("slo_class", [])},
            "seeds": None,
            "first_seed": given["first_seed"],
            "loads": [],
            "execution": {"out": str(path), "executor": "local", "jobs": None},
        },
        "policies": list(rules),
        "requests": 100,
        "loads": given["loads"],
        "seeds": seeds,
        "tuning": given.get("tuning"),
    }
    path.mkdir()
    (path / "command.json").write_text(json.dumps(command))
    with (path / "cells.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        names = ["rate_rps", "requests", "ttft_p95_s", "slo_attainment", "deflected_share", "aggregated_share"]
        rows.writerow(["policy", "workload", "load", "seed", *names])
        for workload in given["workload"] or ["trace"]:
            for load in given["loads"]:
                for seed in seeds:
                    for policy, measured in rules.items():
                        label = PolicySpec.parse(policy).label
                        result = measure(label, workload, load, seed) if measure else at_seed(measured, seed)
                        rows.writerow([label, workload, load, seed, rate_rps * load + seed, 100, *result, *SHARES])
    knees = {workload: {"value": rate_rps, "low": rate_rps, "high": rate_rps} for workload in given["workload"] or []}
    (path / "knees.json").write_text(json.dumps({"knees_rps": knees}))
    return path
