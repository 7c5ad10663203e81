"""The capacity command, and what follows from the knees of policies."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments import capacity
from experiments.capacity import CapacityOptions
from experiments.options.parser import parse
from experiments.reports.capacity_report import Capacity, best_table, savings_at_decode_nodes, savings_of_total
from experiments.runs.saturation import Knee
from policies import PolicySpec
from tests.refusal import refused


def carries(policy: str, split: str, *rates_rps: float) -> Capacity:
    gpus = int(split[0]) + int(split[2])
    return Capacity(PolicySpec.parse(policy), split, gpus, tuple([Knee(rate, False, {}) for rate in rates_rps]))


FOUND = [
    carries("static", "1P3D", 4, 5, 6),
    carries("static", "2P2D", 9, 10, 11),
    carries("static", "3P1D", 7, 8, 9),
    carries("static", "4P2D", 19, 20, 21),
    carries("kairos", "1P3D", 10, 11, 12),
    carries("kairos", "2P2D", 20, 22, 24),
    carries("kairos", "3P1D", 7, 9, 11),
    carries("kairos", "4P2D", 30, 30, 30),
    carries("random", "1P3D", 1, 2, 3),
    carries("random", "2P2D", 1, 2, 3),
    carries("random", "3P1D", 1, 2, 3),
    carries("random", "4P2D", 1, 2, 3),
]


def test_goodput_is_the_mean_rate_per_gpu() -> None:
    interval = FOUND[1].per_gpu_rps
    assert interval.value == 2.5
    assert 0 < interval.low < 2.5 < interval.high


def test_of_equal_splits_the_one_with_fewest_prefill_nodes_is_best() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in best_table(FOUND).splitlines()[2:]]
    assert [row[:3] for row in rows if row[0] == "4"] == [
        ["4", "`static`", "2P2D"],
        ["4", "`kairos`", "2P2D"],
        ["4", "`random`", "1P3D"],
    ]


def test_prefill_nodes_saved_at_the_same_number_of_nodes() -> None:
    kairos, weak = [one for one in savings_of_total(FOUND) if sum(one.base.nodes) == 4]
    assert (kairos.policy.label, kairos.base.split, kairos.base.mean_rps) == ("kairos", "2P2D", 10)
    assert kairos.needs is not None
    assert kairos.needs.split == "1P3D"  # 11 of 10 requests/s; 2P2D carries more and has more prefill nodes
    assert kairos.ratio is not None
    assert kairos.ratio.value == pytest.approx(1.1)
    assert weak.needs is None
    assert weak.ratio is None


def test_prefill_nodes_saved_at_the_same_number_of_decode_nodes() -> None:
    kairos, weak = savings_at_decode_nodes(FOUND)  # only two decode nodes have several numbers of prefill nodes
    assert kairos.base.split == "4P2D"
    assert kairos.needs is not None
    assert kairos.needs.split == "2P2D"
    assert weak.needs is None


def test_pairs_of_seeds_are_resampled_together() -> None:
    doubled = [carries("static", "2P2D", 5, 9, 20, 31, 40), carries("kairos", "2P2D", 10, 18, 40, 62, 80)]
    (saving,) = savings_of_total(doubled)
    assert saving.ratio == pytest.approx((2.0, 2.0, 2.0))


COMMAND = "--policies static kairos --splits 1P1D 1P2D --requests 60 --span 2 --seeds 2"


def run(arguments: str, out: Path) -> None:
    capacity.run(parse(CapacityOptions, "capacity", "", [*arguments.split(), "--out", str(out)]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capacity") / "out"
    run(COMMAND, out)
    return out


def test_the_folder_of_capacity_is_whole(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "capacity.csv").read_text().splitlines()))
    assert [(row["policy"], row["split"], row["seed"]) for row in rows] == [
        (policy, split, seed)
        for split in ("1P1D", "1P2D")
        for policy in ("static", "kairos")
        for seed in ("950000", "950001")
    ]
    for row in rows:
        assert float(row["goodput_rps_per_gpu"]) == float(row["goodput_rps"]) / int(row["gpus"]) > 0
    text = (finished / "summary.md").read_text()
    of_static = np.mean([float(row["goodput_rps_per_gpu"]) for row in rows[:2]])
    assert f"| 1P1D | {of_static:.2f} [" in text
    assert (finished / "report.html").stat().st_size > 10_000
    assert (finished / "figures" / "capacity.png").read_bytes().startswith(b"\x89PNG")


def test_more_policies_search_only_what_is_new(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "capacity.csv").read_text().splitlines()
    run(COMMAND.replace("static kairos", "static kairos round-robin").replace("1P1D 1P2D", "1P1D"), finished)
    err = capsys.readouterr().err
    assert "4 of 6 searches for a knee are finished already" in err
    assert err.count("knee of round-robin") == err.count("knee of") == 2
    assert set(before[:5]) < set((finished / "capacity.csv").read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense", "unknown policy 'nonsense'"),
        ("--workload nonsense", "unknown workload 'nonsense'"),
        ("--splits 2P2D 4P", "4P"),
        ("--seeds 0", "--seeds 0"),
        ("--requests 0", "--requests 0"),
        ("--span 0", "--span 0"),
        ("--tbt-slo nan", "--tbt-slo nan"),
        ("--profile nonsense", "no profile named 'nonsense'"),
        ("--connector nonsense", "no connector named 'nonsense'"),
        ("--cluster-option node_speeds=1,1,1,0.6 --splits 2P2D 3P3D", "node_speeds names 4 nodes"),
    ],
)
def test_invalid_capacity_options_are_named_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    with refused(says, out=tmp_path / "out"):
        run(arguments, tmp_path / "out")
