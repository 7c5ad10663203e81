"""Export a learned policy for routers that are not in Python.

Writes into --out: network.onnx, the policy's network, whose inputs are the environment's observation (needs the package
onnx); and linear.json, a linear policy that imitates the whole policy with counts that any router keeps.
`agents/linear_scores.py` evaluates it in plain Python. linear.json is a policy for every command: `experiments.compare
--policies ppo linear=OUT/linear.json` tells what it loses.

The placements to imitate are those on training requests: families at loads up to 1.05 under several TBT SLOs. Runs are
kept in runs/: the same command resumes.
"""

import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from agents.linear_policy import agreement, fit_linear, write_linear
from agents.onnx_export import write_onnx
from agents.policy_file import load_policy
from envs.cluster import ClusterConfig
from envs.generators import families
from envs.slos import Slos
from envs.workload import TTFT_SLO_S
from experiments.learning.imitation import ChoicesPlayed, choices_of
from experiments.options.execution_options import ExecutionOptions
from experiments.options.parser import CommandOptions, check_counts, check_positive, command, option
from experiments.options.request_options import check_families
from experiments.reports.document import claim, commit
from experiments.runs.data_splits import TRAINING_SEED
from experiments.runs.requests import Family
from experiments.runs.saturation import knees
from hardware_profiles import InputError, load_profile
from policies import PolicySpec

_FAMILIES = ("LPLD", "LPHD", "HPLD", "HPHD", "burst")
_EVERY = 5
"""One run of so many is held out from the fit."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CommandOptions):
    """Options of `experiments.export`."""

    policy: str = option("ppo", metavar="P", help="ppo, or a trained policy's file")
    workload: tuple[str, ...] = option(_FAMILIES, metavar="W", help=f"families: {', '.join(families())}")
    loads: tuple[float, ...] = option((0.5, 0.7, 0.85, 0.95, 1.05), metavar="L", help="multiples of the knee of static")
    tbt_slos: tuple[float, ...] = option((0.025, 0.03, 0.05, 0.1), metavar="S", help="TBT SLOs, seconds")
    requests: int = option(600, metavar="N", help="requests per run")
    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile, name or path")
    cluster: str = option("2P2D", metavar="NPMD", help="prefill and decode nodes")
    execution: ExecutionOptions

    def __post_init__(self) -> None:
        check_counts(self, "requests")
        check_positive(self, "loads", "tbt_slos")
        check_families(self.workload)


def run(options: ExportOptions) -> None:
    """Write both files. Raises InputError (the policy is no trained one)."""
    spec = PolicySpec.parse(options.policy)
    if spec.path is None or spec.path.suffix != ".npz":
        raise InputError(f"--policy {options.policy}: must be ppo, or the policy.npz of experiments.train")
    file = load_policy(spec.path)
    spec.make()
    config = ClusterConfig(load_profile(options.profile), shape=options.cluster)
    folder = options.execution.folder("export", options)
    claim(folder, "export", options)
    if find_spec("onnx") is None:
        print("note: without the package onnx no network.onnx is written; pip install -e '.[export]'", file=sys.stderr)
    else:
        write_onnx(folder / "network.onnx", file.weights, file.layout)
    linear = folder / "linear.json"
    _imitate(spec, options, config, folder, linear)


def _imitate(spec: PolicySpec, options: ExportOptions, config: ClusterConfig, folder: Path, linear: Path) -> None:
    cache = options.execution.cache(folder)
    tasks: list[ChoicesPlayed] = []
    for tbt_s in options.tbt_slos:
        slos = Slos.of(TTFT_SLO_S, tbt_s)
        found = knees(options.workload, slos, config, cache)
        for family, load in product(options.workload, options.loads):
            seed = TRAINING_SEED + len(tasks)
            recipe = Family(family, found[family].rate_rps, slos).at(load, options.requests, seed)
            tasks.append(ChoicesPlayed(replace(spec, alias=""), recipe, config, seed))
    entries = cache.run(tasks)
    seen = [choice for number, entry in enumerate(entries) if number % _EVERY for choice in choices_of(entry)]
    held_out = [choice for entry in entries[::_EVERY] for choice in choices_of(entry)]
    weights = fit_linear(seen)
    write_linear(linear, weights, f"imitates {spec.text}; {options.typed}; commit {commit()}")
    same_pair, same_kind = agreement(weights, held_out)
    print(f"linear.json imitates {len(seen):,} placements; of {len(held_out):,} others it takes the same pair of nodes")
    print(f"in {same_pair:.1%}, and a pair of the same kind in {same_kind:.1%}")
    print(f"\nwritten to {folder}: linear.json" + (", network.onnx" if find_spec("onnx") else ""))


if __name__ == "__main__":
    command(ExportOptions, run, "export", __doc__)
