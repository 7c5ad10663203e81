"""Capacity by policy and split: what follows from knees, and the command."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from experiments import knee
from experiments.capacity.command import capacity, parse, splits
from experiments.capacity.report import Capacity, best, savings_at_decode_nodes, savings_of_total
from experiments.knee import Knee
from hardware_profiles import InputError


def carries(policy: str, split: str, *rates_rps: float) -> Capacity:
    gpus = int(split[0]) + int(split[2])
    return Capacity(policy, split, gpus, tuple([Knee(rate, False, {}) for rate in rates_rps]))


FOUND = [
    carries("static", "1P3D", 4, 5, 6),
    carries("static", "2P2D", 9, 10, 11),
    carries("static", "3P1D", 7, 8, 9),
    carries("static", "4P2D", 19, 20, 21),
    carries("kairos", "1P3D", 10, 11, 12),
    carries("kairos", "2P2D", 20, 22, 24),
    carries("kairos", "3P1D", 7, 9, 11),
    carries("kairos", "4P2D", 30, 30, 30),
    carries("weak", "1P3D", 1, 2, 3),
    carries("weak", "2P2D", 1, 2, 3),
    carries("weak", "3P1D", 1, 2, 3),
    carries("weak", "4P2D", 1, 2, 3),
]


def test_splits_have_both_roles() -> None:
    assert splits(4) == ["1P3D", "2P2D", "3P1D"]


def test_goodput_is_the_mean_rate_of_a_gpu() -> None:
    interval = FOUND[1].per_gpu_rps
    assert interval.value == 2.5
    assert interval.low < 2.5 < interval.high


def test_the_best_split_carries_most_and_of_equals_has_the_fewest_prefill_nodes() -> None:
    assert best(FOUND[:3]).split == "2P2D"
    assert best(FOUND[8:11]).split == "1P3D"


def test_prefill_nodes_saved_at_the_same_number_of_nodes() -> None:
    kairos, weak = [one for one in savings_of_total(FOUND) if one.base.nodes == 4]
    assert (kairos.policy, kairos.base.split, kairos.base.mean_rps) == ("kairos", "2P2D", 10)
    assert kairos.needs is not None
    assert kairos.needs.split == "1P3D"  # 11 of 10 requests/s; 2P2D carries more and has more prefill nodes
    assert kairos.prefill_nodes == 1
    assert kairos.ratio is not None
    assert kairos.ratio.value == pytest.approx(1.1)
    assert weak.needs is None
    assert weak.prefill_nodes is None


def test_prefill_nodes_saved_at_the_same_number_of_decode_nodes() -> None:
    (kairos, weak) = savings_at_decode_nodes(FOUND)  # two decode nodes alone have several numbers of prefill nodes
    assert kairos.base.split == "4P2D"
    assert kairos.needs is not None
    assert kairos.needs.split == "2P2D"
    assert kairos.prefill_nodes == 2
    assert weak.needs is None


def test_pairs_of_seeds_are_resampled_together() -> None:
    doubled = [carries("static", "2P2D", 5, 9, 20, 31, 40), carries("kairos", "2P2D", 10, 18, 40, 62, 80)]
    (saving,) = savings_of_total(doubled)
    assert saving.ratio is not None
    assert saving.ratio == pytest.approx((2.0, 2.0, 2.0))


COMMAND = "--policies static kairos --splits 1P1D 1P2D --requests 60 --span 2 --seeds 2"


@pytest.fixture(scope="module", autouse=True)
def _same_code() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.capacity.command.simulation_digest", lambda: "code")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capacity") / "out"
    capacity(parse([*COMMAND.split(), "--out", str(out)]))
    return out


def test_the_folder_is_whole_and_says_what_was_found(finished: Path) -> None:
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
    assert "--requests 60" in text
    assert (finished / "report.html").stat().st_size > 10_000
    assert (finished / "figures" / "capacity.png").read_bytes().startswith(b"\x89PNG")


def test_policies_are_searched_on_the_same_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[knee.Search] = []

    def note(searches: Iterable[knee.Search], *_: object, **__: object) -> dict[knee.Search, Knee]:
        searched.extend(searches)
        return {search: Knee(1.0, False, {}) for search in searched}

    monkeypatch.setattr("experiments.capacity.command.search_all", note)
    capacity(parse([*COMMAND.split(), "--out", str(tmp_path)]))
    assert len(searched) == 2 * 2 * 2
    assert len({id(search.at_rate) for search in searched}) == 1
    seeds = {(search.policy, search.config.shape, search.seeds) for search in searched}
    assert {seed for *_, seed in seeds} == {(950_000,), (950_001,)}
    assert len(seeds) == len(searched)


def test_more_seeds_and_policies_go_on_from_what_is_there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "capacity.csv").read_text().splitlines()
    searched = []
    find = knee._find
    monkeypatch.setattr(knee, "_find", lambda search: (searched.append(search), find(search))[1])
    more = COMMAND.replace("static kairos", "static kairos round-robin").replace("1P1D 1P2D", "1P1D")
    capacity(parse([*more.split(), "--out", str(finished)]))
    assert [search.policy for search in searched] == ["round-robin"] * 2
    assert set(before[:5]) < set((finished / "capacity.csv").read_text().splitlines())


def test_another_command_does_not_get_the_folder(finished: Path) -> None:
    with pytest.raises(InputError, match="cells of another command"):
        capacity(parse([*COMMAND.split(), "--ttft-slo", "1", "--out", str(finished)]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense", "no policy 'nonsense'"),
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
def test_a_mistake_is_said_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        capacity(parse([*arguments.split(), "--out", str(out)]))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()
