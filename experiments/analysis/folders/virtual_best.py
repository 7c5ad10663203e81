"""The virtual best of each cell: the best rule under the better step budget, and the file that names it.

docs/protocol.md states how it is chosen. A cell is a workload at a load under a TBT SLO; the cluster is the same in
all folders that are read together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import policies
from experiments.analysis.bootstrap import Floats
from experiments.analysis.folders.comparison_folder import Folder, check_same, named
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from hardware_profiles import InputError
from policies import PolicySpec
from policies.kinds import kind_of

SHIPPED = Path(policies.__file__).with_name("shipped_portfolio.json")
"""The virtual best of the cells of docs/protocol.md on 2P2D, as `experiments.portfolio` wrote it."""
MOST_RANKED = 6
"""Candidates per cell that a portfolio keeps."""
_DIFFER = {"policies", "tuned", "workload", "loads", "tbt_slo", "step_budget", "requests"}
"""Options in which folders that are read together may differ."""
_SEEDS = {"seeds", "first_seed"}


class Cell(NamedTuple):
    """A workload at a load under a TBT SLO, seconds."""

    workload: str
    load: float
    tbt_slo_s: float

    def __str__(self) -> str:
        return f"{self.workload}, load {self.load:g}, TBT SLO {1e3 * self.tbt_slo_s:g} ms"


@dataclass(frozen=True)
class Candidate:
    """A policy under one step budget in a cell: its P95 TTFT (seconds) and SLO attainment, shape (seeds,)."""

    policy: PolicySpec
    step_budget: str
    p95_s: Floats
    attainment: Floats

    @property
    def mean_p95_s(self) -> float:
        """Mean over seeds of P95 TTFT, seconds."""
        return float(self.p95_s.mean())

    @property
    def mean_attainment(self) -> float:
        """Mean over seeds of SLO attainment."""
        return float(self.attainment.mean())


class CellRuns(NamedTuple):
    """All policies of a cell under all step budgets, on the same requests, and the nominal rate of arrivals."""

    rate_rps: float
    candidates: list[Candidate]


def gather(folders: Sequence[Folder]) -> dict[Cell, CellRuns]:
    """The candidates of every cell: TBT SLOs ascend, workloads are in the folders' order, loads ascend.

    Raises:
        InputError: folders of different clusters, profiles, seeds or other conditions, or not on the same requests.
    """
    first = folders[0]
    found: dict[Cell, dict[tuple[str, str], Candidate]] = {}
    rates_rps: dict[Cell, float] = {}
    requests: dict[Cell, tuple[Path, Floats]] = {}
    for folder in folders:
        check_same(first, folder, (first.options.keys() | folder.options.keys()) - _DIFFER)
        step_budget, tbt_slo_s = folder.table
        for workload in folder.options["workload"]:
            for load in folder.options["loads"]:
                cell = Cell(workload, load, tbt_slo_s)
                rates_rps.setdefault(cell, folder.rate_rps(workload, load))
                for spec in folder.policies.values():
                    runs = np.array([folder.trials[spec.label, workload, load, seed] for seed in folder.seeds])
                    where, given = requests.setdefault(cell, (folder.path, runs[:, :2]))
                    for seed, same in zip(folder.seeds, (given == runs[:, :2]).all(axis=1), strict=True):
                        if not same:  # realised rate and number of requests
                            run = named(spec.label, workload, load, seed)
                            raise InputError(f"{folder.path}: the run of {run} had other requests than in {where}")
                    one = Candidate(spec, step_budget, runs[:, 2], runs[:, 3])
                    other = found.setdefault(cell, {}).setdefault((str(spec), step_budget), one)
                    if not (
                        np.array_equal(other.p95_s, one.p95_s) and np.array_equal(other.attainment, one.attainment)
                    ):
                        raise InputError(f"{folder.path}: {spec} on {cell} had another result in another folder")
    workloads = list(dict.fromkeys(cell.workload for cell in found))
    order = sorted(found, key=lambda cell: (cell.tbt_slo_s, workloads.index(cell.workload), cell.load))
    return {cell: CellRuns(rates_rps[cell], list(found[cell].values())) for cell in order}


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The rules within ATTAINMENT_MARGIN of the highest SLO attainment of a rule by P95 TTFT: the virtual best first.

    Learned policies, users' classes and clairvoyant bounds are no rules. Empty if there is no rule.
    """
    rules = [one for one in candidates if kind_of(one.policy) != "other"]
    enough = max((one.mean_attainment for one in rules), default=0.0) - ATTAINMENT_MARGIN
    return sorted([one for one in rules if one.mean_attainment >= enough], key=lambda one: one.mean_p95_s)


class Ranked(NamedTuple):
    """A candidate in a portfolio, with its means over seeds."""

    policy: str
    step_budget: str
    ttft_p95_s: float
    slo_attainment: float

    @property
    def spec(self) -> PolicySpec:
        """The policy, taken apart."""
        return PolicySpec.parse(self.policy)

    def is_of(self, candidate: Candidate) -> bool:
        """Whether it is the same policy under the same step budget, whatever its label."""
        return (self.spec.text, self.step_budget) == (candidate.policy.text, candidate.step_budget)


class PortfolioCell(NamedTuple):
    """A cell of a portfolio: its nominal rate, and its candidates as `ranked`, the virtual best first."""

    rate_rps: float
    candidates: Sequence[Ranked]


@dataclass(frozen=True)
class Portfolio:
    """The virtual best of each cell.

    Attributes:
        path: of its file, or of the first folder that it was made from.
        options: what all folders have in common, by option: the cluster, the profile, the TTFT SLO and so on.
        seeds: of the runs on which it was chosen.
        cells: the candidates of each cell, at most MOST_RANKED.
    """

    path: Path
    options: Mapping[str, Any]
    seeds: Sequence[int]
    cells: Mapping[Cell, PortfolioCell]

    @classmethod
    def of(cls, folders: Sequence[Folder]) -> "Portfolio":
        """Choose the virtual best of each cell; InputError as `gather`, or if a cell has no rule."""
        cells: dict[Cell, PortfolioCell] = {}
        for cell, runs in gather(folders).items():
            best = ranked(runs.candidates)[:MOST_RANKED]
            if not best:
                raise InputError(
                    f"{cell}: no folder has a rule; learned policies and bounds cannot be the virtual best"
                )
            cells[cell] = PortfolioCell(
                runs.rate_rps,
                [Ranked(str(one.policy), one.step_budget, one.mean_p95_s, one.mean_attainment) for one in best],
            )
        options = {name: value for name, value in folders[0].options.items() if name not in _DIFFER | _SEEDS}
        return cls(folders[0].path, options, folders[0].seeds, cells)

    @classmethod
    def read(cls, path: Path) -> "Portfolio":
        """Read a file that `experiments.portfolio` wrote, or SHIPPED for "shipped"; InputError if it is none."""
        path = SHIPPED if str(path) == "shipped" else path
        if not path.is_file():
            raise InputError(f"{path}: no such file; give the portfolio.json of experiments.portfolio")
        try:
            contents = json.loads(path.read_bytes())
            cells = {
                Cell(one["workload"], float(one["load"]), float(one["tbt_slo_s"])): PortfolioCell(
                    float(one["rate_rps"]), [Ranked(**candidate) for candidate in one["candidates"]]
                )
                for one in contents["cells"]
            }
            if not (cells and all(one.candidates for one in cells.values())):
                raise ValueError("a cell without candidates")
            return cls(path, dict(contents["options"]), list(contents["seeds"]), cells)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{path}: not a file that experiments.portfolio wrote, or a damaged one") from None

    def contents(self) -> dict[str, object]:
        """The contents of its file, without the command."""
        return {
            "profile": self.options.get("profile"),
            "cluster": self.options.get("cluster"),
            "seeds": list(self.seeds),
            "options": self.options,
            "cells": [
                cell._asdict()
                | {"rate_rps": one.rate_rps, "candidates": [candidate._asdict() for candidate in one.candidates]}
                for cell, one in self.cells.items()
            ],
        }

    def check(self, folder: Folder) -> None:
        """Raise InputError for a folder of another cluster or other conditions than this portfolio."""
        check_same(self, folder, (self.options.keys() | folder.options.keys()) - _DIFFER - _SEEDS)

    def of_cell(self, cell: Cell, rate_rps: float) -> Ranked:
        """The virtual best of a cell; InputError if the portfolio lacks the cell, or has it at another rate."""
        if cell not in self.cells:
            raise InputError(f"{self.path}: has no cell {cell}; add its folder to experiments.portfolio")
        found = self.cells[cell]
        if not isclose(found.rate_rps, rate_rps, rel_tol=1e-6):
            raise InputError(
                f"{self.path}: {cell} is {found.rate_rps:g} requests/s there, and {rate_rps:g} in the runs"
            )
        return found.candidates[0]
