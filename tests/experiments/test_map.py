import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import experiments.compare as compare
from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.map_conditions import Condition, Contest, Criterion, contest, merge, tied
from experiments.map import BEGIN, END, MapOptions, run
from experiments.options.parser import parse
from experiments.runs.saturation import Knee
from hardware_profiles import InputError
from hardware_profiles.cli import run_main
from tests.experiments.made_up_folder import RULES, Measured, write_folder

PNG = b"\x89PNG\r\n"


def merged(*folders: Path) -> dict[Condition, list[str]]:
    return {
        key: [runs.policy.label for runs in found]
        for key, found in merge([Folder.read(path) for path in folders]).items()
    }


def contest_of(folder: Path, criterion: Criterion) -> Contest:
    return contest(next(iter(merge([Folder.read(folder)]).values())), criterion)


def draw_map(*arguments: str | Path) -> None:
    run(parse(MapOptions, "map", "", [str(each) for each in arguments]))


def exit_code(arguments: Sequence[str | Path]) -> object:
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: draw_map(*arguments))
    return stopped.value.code


def test_the_lowest_p95_wins_whatever_its_attainment(tmp_path: Path) -> None:
    found = contest_of(write_folder(tmp_path / "a"), "lowest")
    assert (found.winner.policy.label, found.winner.kind) == ("colocated", "role-free")
    assert {kind: runs.policy.label for kind, runs in found.best.items()} == {
        "role-free": "colocated",
        "deflecting": "kairos",
        "disaggregated": "static",
    }
    assert found.role_free_ratio is not None
    assert found.role_free_ratio == pytest.approx((0.5, 0.5, 0.5))
    assert found.tied_kinds == []


def test_a_usable_winner_is_within_a_point_of_the_best_attainment(tmp_path: Path) -> None:
    found = contest_of(write_folder(tmp_path / "a"), "usable")
    assert found.winner.policy.label == "kairos"
    assert found.top_attainment == 1.0
    assert list(found.best) == ["deflecting", "disaggregated"]
    assert found.role_free_ratio is None


def test_learned_policies_do_not_win(tmp_path: Path) -> None:
    rules = {**RULES, "mine=runs/policy.npz": (0.1, 1.0), "policies.kairos:Kairos": (0.2, 1.0)}
    assert contest_of(write_folder(tmp_path / "a", rules), "lowest").winner.policy.label == "colocated"


def test_a_map_of_learned_policies_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rule to compare"):
        contest_of(write_folder(tmp_path / "a", {"runs/policy.npz": (0.1, 1.0)}), "lowest")


def test_kinds_whose_ratio_may_be_one_are_tied(tmp_path: Path) -> None:
    def scattered(measured: Measured, seed: int) -> Measured:
        return measured[0] + (0.4 if (seed + (measured[0] == 1.0)) % 2 else 0.0), measured[1]

    rules = {"static": (4.0, 1.0), "kairos": (1.0, 1.0), "colocated": (0.95, 1.0)}
    found = contest_of(write_folder(tmp_path / "a", rules, at_seed=scattered), "lowest")
    assert found.winner.policy.label == "colocated"
    assert found.tied_kinds == ["deflecting"]
    assert found.role_free_ratio is not None
    assert tied(found.role_free_ratio)


def test_folders_of_one_table_are_merged(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a")
    second = write_folder(tmp_path / "b", {"static": RULES["static"], "arrow": (0.7, 1.0)})
    strict = write_folder(tmp_path / "c", tbt_slo=0.03, rate_rps=4.0)
    found = merged(first, second, strict)
    assert len(found) == 8
    assert found[Condition("slo", 0.1, "burst", 0.7)] == ["static", "kairos", "colocated", "arrow"]
    assert found[Condition("slo", 0.03, "burst", 0.7)] == ["static", "kairos", "colocated"]


def test_tuned_parameters_and_their_budget_are_read(tmp_path: Path) -> None:
    rules = {"static": (2.0, 1.0), "kairos=kairos:alpha=1.5": (1.0, 1.0)}
    folder = Folder.read(write_folder(tmp_path / "table", rules, tuning="up to 18 settings of each policy"))
    assert [str(spec) for spec in folder.policies.values()] == ["static", "kairos=kairos:alpha=1.5"]
    assert folder.tuning == "tuned with up to 18 settings of each policy"


OTHER_RULE = {"arrow": (0.7, 1.0)}


@pytest.mark.parametrize(
    ("rules", "options", "reason"),
    [
        (OTHER_RULE, {"cluster": "1P3D"}, "--cluster: 2P2D, 1P3D"),
        (OTHER_RULE, {"cluster": "1P3D", "tbt_slo": 0.03}, "--cluster: 2P2D, 1P3D"),
        (OTHER_RULE, {"loads": [0.7]}, "--loads"),
        (OTHER_RULE, {"workload": ["burst"]}, "--workload"),
        (OTHER_RULE, {"seeds": 5}, "--seeds: 6, 5"),
        (OTHER_RULE, {"rate_rps": 6.0}, "run of arrow, HPLD, load 0.7, seed 0 had other requests than static"),
        ({"static": (2.1, 1.0)}, {}, "static, HPLD, load 0.7, seed 0 had another result"),
        ({"kairos=kairos:cap=2": RULES["kairos"]}, {}, "kairos is kairos=kairos:cap=2, and kairos in another"),
    ],
)
def test_folders_that_do_not_agree_are_refused(
    tmp_path: Path, rules: Mapping[str, Measured], options: dict[str, Any], reason: str
) -> None:
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", rules, **options)
    with pytest.raises(InputError) as refused:
        merged(first, second)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_lost_run_is_named(tmp_path: Path) -> None:
    cells = write_folder(tmp_path / "a") / "cells.csv"
    cells.write_text("".join(cells.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"lacks the run of colocated, burst, load 1\.05, seed 5"):
        Folder.read(tmp_path / "a")


def test_a_value_that_is_no_number_is_named_by_its_line(tmp_path: Path) -> None:
    cells = write_folder(tmp_path / "a") / "cells.csv"
    cells.write_text(cells.read_text().replace(",1.0,", ",much,", 1))
    with pytest.raises(InputError, match=r"cells\.csv, line 2"):
        Folder.read(tmp_path / "a")


def test_loads_may_be_in_another_order(tmp_path: Path) -> None:
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", OTHER_RULE, loads=[1.05, 0.7])
    assert merged(first, second)[Condition("slo", 0.1, "burst", 0.7)] == ["static", "kairos", "colocated", "arrow"]


def test_a_folder_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    note = write_folder(tmp_path / "a") / "command.json"
    note.write_text(json.dumps({"policies": ["static"], "workload": ["burst"], "loads": [0.7], "seeds": 5}))
    with pytest.raises(InputError, match=r"not a file that experiments\.compare wrote"):
        Folder.read(tmp_path / "a")


def test_a_trace_and_too_few_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a trace"):
        Folder.read(write_folder(tmp_path / "a", workload=None))
    with pytest.raises(InputError, match="4 seeds"):
        Folder.read(write_folder(tmp_path / "b", seeds=4))


@pytest.mark.slow
def test_the_map_is_written_with_its_figures(tmp_path: Path) -> None:
    rules = {**RULES, "shortest-ttft:alpha=0.5,choices=pairs": (0.55, 1.0)}
    folders = [
        write_folder(tmp_path / "a", rules),
        write_folder(tmp_path / "b", {"static": RULES["static"], "runs/policy.npz": (0.1, 1.0)}),
        write_folder(tmp_path / "c", rules, tbt_slo=0.03),
        write_folder(tmp_path / "d", step_budget="fixed", loads=[0.7]),
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nearlier map\n{END}\nafter\n")
    draw_map(*folders, "--out", tmp_path / "out", "--page", page)
    with (tmp_path / "out" / "map.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (4 + 4 + 2)
    assert {row["winner"] for row in rows if row["criterion"] == "lowest"} == {"colocated"}
    usable = [row for row in rows if row["criterion"] == "usable" and row["step_budget"] == "slo"]
    assert {row["winner"] for row in usable} == {"shortest-ttft:alpha=0.5,choices=pairs"}
    assert float(usable[0]["role_free_over_role_keeping"]) == pytest.approx(0.55)
    text = (tmp_path / "out" / "map.md").read_text()
    assert "`policy.npz` (left out)" in text
    assert "#### Step budget `slo`, 30 ms TBT SLO" in text
    assert page.read_text().startswith(f"before\n{BEGIN}\n\n{text}")
    assert "earlier map" not in page.read_text()
    assert page.read_text().endswith(f"{END}\nafter\n")
    figures = sorted((tmp_path / "out" / "figures").iterdir())
    assert [path.name for path in figures] == [
        "map-ratios-lowest.png",
        "map-ratios-usable.png",
        "map-winners-lowest.png",
        "map-winners-usable.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in figures)


@pytest.mark.slow
def test_the_map_reads_what_compare_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.compare.knees", lambda *_: {"burst": Knee(8.0, False, {8.0: [1.0]})})
    given = "--policies static few=kairos:cap=1 colocated --workload burst --requests 40 --seeds 5 --loads 0.7 1.05"
    options = parse(compare.CompareOptions, "compare", "", [*given.split(), "--out", str(tmp_path / "table")])
    compare.run(options)
    draw_map(tmp_path / "table", "--out", tmp_path / "out")
    with (tmp_path / "out" / "map.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["criterion"] == "lowest"]
    with (tmp_path / "table" / "cells.csv").open(newline="") as file:
        found = [
            float(row["ttft_p95_s"]) for row in csv.DictReader(file) if (row["policy"], row["load"]) == ("few", "0.7")
        ]
    assert [(row["workload"], float(row["load"])) for row in rows] == [("burst", 0.7), ("burst", 1.05)]
    assert rows[0]["deflecting_rule"] == "few"
    assert float(rows[0]["deflecting_ttft_p95_s"]) == pytest.approx(sum(found) / 5)


def test_invalid_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    good = write_folder(tmp_path / "good")
    unknown = write_folder(tmp_path / "unknown", {"static": (1.0, 1.0), "newest": (1.0, 1.0)})
    other = write_folder(tmp_path / "other", OTHER_RULE, cluster="1P3D")
    unfinished = write_folder(tmp_path / "unfinished")
    (unfinished / "cells.csv").unlink()
    damaged = write_folder(tmp_path / "damaged")
    (damaged / "command.json").write_text("{")
    page = tmp_path / "page.md"
    page.write_text("no marks")
    given: list[list[str | Path]] = [
        [tmp_path / "none", *out],
        [unknown, *out],
        [good, other, *out],
        [unfinished, *out],
        [damaged, *out],
        [good, *out, "--page", page],
        [good],
    ]
    for arguments in given:
        assert exit_code(arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
