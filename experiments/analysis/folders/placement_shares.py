"""Shares of a policy's requests that it places on two nodes, on a decode node alone and on a prefill node alone."""

import csv
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.folders.virtual_best import Cell


class PlacementShares(NamedTuple):
    """Shares of the requests, means over seeds; they add up to 1.

    Attributes:
        disaggregated: prefilled on one node and decoded on another.
        deflected: a decode node did both.
        aggregated: a prefill node did both.
    """

    disaggregated: float
    deflected: float
    aggregated: float


def placement_shares(folders: Sequence[Folder], label: str, step_budget: str) -> dict[Cell, PlacementShares]:
    """The shares of a policy in each cell of these folders; older folders, which lack a column, are left out."""
    found: dict[Cell, list[tuple[float, float]]] = {}
    for folder in folders:
        budget, tbt_slo_s = folder.table
        if budget != step_budget:
            continue
        with (folder.path / "cells.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["policy"] == label and "aggregated_share" in row:
                    cell = Cell(row["workload"], float(row["load"]), tbt_slo_s)
                    found.setdefault(cell, []).append((float(row["deflected_share"]), float(row["aggregated_share"])))
    shares = {}
    for cell, rows in found.items():
        one_node, aggregated = np.mean(rows, axis=0).tolist()
        shares[cell] = PlacementShares(1.0 - one_node, one_node - aggregated, aggregated)
    return shares
