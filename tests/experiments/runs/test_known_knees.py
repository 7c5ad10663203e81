"""Knees that are known already."""

from dataclasses import replace
from pathlib import Path

import pytest

from envs.cluster import ClusterConfig
from envs.slos import DEFAULT_SLOS, Slos
from experiments.analysis.bootstrap import Interval
from experiments.analysis.folders.virtual_best import Portfolio
from experiments.runs.known_knees import read_knees
from experiments.runs.saturation import write_knees
from hardware_profiles import InputError, load_profile


def test_known_knees_scale_with_the_nodes_and_are_read_as_they_were_written(tmp_path: Path) -> None:
    config, path = ClusterConfig(load_profile("a100-qwen3-8b"), shape="2P2D"), tmp_path / "knees.json"
    known = {"burst": Interval(8.0, 7.0, 9.0), "LPLD": Interval(160.0, 150.0, 170.0)}
    write_knees(known, config, path)
    assert read_knees(path, ["burst"], config, DEFAULT_SLOS) == {"burst": known["burst"]}
    larger = read_knees(path, ["burst", "LPLD"], replace(config, shape="2P6D"), DEFAULT_SLOS)
    assert {name: knee.value for name, knee in larger.items()} == {"burst": 16.0, "LPLD": 320.0}
    with pytest.raises(InputError, match="has no knee of HPLD; it has those of burst, LPLD"):
        read_knees(path, ["HPLD"], config, DEFAULT_SLOS)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"not a knees.json"):
        read_knees(path, ["burst"], config, DEFAULT_SLOS)


def test_the_rates_that_ship_are_those_of_the_shipped_portfolio() -> None:
    config, shipped = ClusterConfig(load_profile("a100-qwen3-8b"), shape="2P2D"), Path("shipped")
    for cell, best in Portfolio.read(shipped).cells.items():
        slos = Slos.of(2.0, cell.tbt_slo_s)
        for one in (config, replace(config, step_budget="fixed")):
            found = read_knees(shipped, [cell.workload], one, slos)
            assert cell.load * found[cell.workload].value == pytest.approx(best.rate_rps)
    larger = read_knees(shipped, ["burst"], replace(config, shape="4P4D"), slos)
    assert larger["burst"].value == 2 * read_knees(shipped, ["burst"], config, slos)["burst"].value
    with pytest.raises(InputError, match="nothing was tuned for"):
        read_knees(shipped, ["burst"], config, Slos.of(2.0, 0.04))
