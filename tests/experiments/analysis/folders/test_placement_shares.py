"""Shares of requests by where they are placed."""

from pathlib import Path

import pytest

from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.folders.placement_shares import placement_shares
from experiments.analysis.folders.virtual_best import Cell
from tests.experiments.made_up_folder import SHARES, write_folder


def test_shares_of_every_cell_add_up_to_one(tmp_path: Path) -> None:
    folders = [
        Folder.read(write_folder(tmp_path / f"{budget}-{slo_s}", step_budget=budget, tbt_slo=slo_s))
        for budget, slo_s in (("slo", 0.03), ("slo", 0.1), ("fixed", 0.05))
    ]
    found = placement_shares(folders, "kairos", "slo")
    assert set(found) == {
        Cell(w, load, slo_s) for w in ("HPLD", "burst") for load in (0.7, 1.05) for slo_s in (0.03, 0.1)
    }
    for shares in found.values():
        assert sum(shares) == pytest.approx(1.0)
        assert shares.aggregated == pytest.approx(SHARES[1])
        assert shares.deflected + shares.aggregated == pytest.approx(SHARES[0])


def test_folders_without_the_column_are_left_out(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "old")
    cells = path / "cells.csv"
    cells.write_text(cells.read_text().replace("aggregated_share", "another"))
    assert placement_shares([Folder.read(path)], "kairos", "slo") == {}
