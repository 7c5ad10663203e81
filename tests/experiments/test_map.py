import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import policies
from experiments.compare import compare
from experiments.compare import parse as parse_compare
from experiments.map.command import BEGIN, END, draw_map, parse
from experiments.map.folders import Condition, Folder, merge
from experiments.map.kinds import kind_of
from experiments.map.winners import Contest, Criterion, contest, tied
from hardware_profiles import InputError
from hardware_profiles.cli import run_main

PNG = b"\x89PNG\r\n"
SEEDS = 6
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
    rate_rps: float = 5.0,
    **options: Any,
) -> Path:
    """A folder as experiments.compare leaves it, as far as the map reads it."""
    command = {
        "policies": list(rules),
        "tuned": None,
        "workload": ["HPLD", "burst"],
        "loads": [0.7, 1.05],
        "seeds": SEEDS,
        "tbt_slo": 0.1,
        "step_budget": "slo",
        "cluster": "2P2D",
        "profile": "toy",
        "ttft_slo": 2.0,
        **options,
    }
    path.mkdir()
    (path / "command.json").write_text(json.dumps(command))
    with (path / "cells.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        names = ["rate_rps", "requests", "ttft_p95_s", "slo_attainment"]
        rows.writerow(["policy", "workload", "load", "seed", *names])
        for workload in command["workload"] or ["trace"]:
            for load in command["loads"]:
                for seed in range(command["seeds"]):
                    for policy, measured in rules.items():
                        given = [rate_rps * load + seed, 100, *at_seed(measured, seed)]
                        rows.writerow([policies.label(policy), workload, load, seed, *given])
    return path


def merged(*folders: Path) -> dict[Condition, list[str]]:
    return {
        key: [runs.label for runs in found] for key, found in merge([Folder.read(path) for path in folders]).items()
    }


def contest_of(folder: Path, criterion: Criterion) -> Contest:
    return contest(next(iter(merge([Folder.read(folder)]).values())), criterion)


def exit_code(arguments: Sequence[str | Path]) -> object:
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: draw_map(parse([str(each) for each in arguments])))
    return stopped.value.code


def test_every_registered_rule_has_a_kind() -> None:
    kinds = {name: kind_of(name) for name in [*policies.names(), *policies.bounds()]}
    assert kinds["static"] == "disaggregated"
    assert kinds["kairos"] == "deflecting"
    assert kinds["arrow"] == "role-free"
    assert [name for name, kind in kinds.items() if kind == "other"] == policies.bounds()


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("kairos:alpha=1.0,cap=2", "deflecting"),
        ("careful=kairos:alpha=1.0", "deflecting"),
        ("shortest-ttft:alpha=0.5", "deflecting"),
        ("shortest-ttft:choices=pairs,alpha=0.5", "role-free"),
        ("free=shortest-ttft:alpha=0.5,choices=pairs", "role-free"),
        ("my.module:Rule", "other"),
        ("runs/train/policy.npz", "other"),
        ("mine=runs/train/policy.npz", "other"),
    ],
)
def test_a_kind_follows_from_the_rule_and_its_parameters(policy: str, kind: str) -> None:
    assert kind_of(policy) == kind


def test_an_unknown_rule_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'newest'"):
        kind_of("newest:knob=3")


def test_the_lowest_p95_wins_whatever_its_attainment(tmp_path: Path) -> None:
    found = contest_of(write_folder(tmp_path / "a"), "lowest")
    assert (found.winner.label, found.winner.kind) == ("colocated", "role-free")
    assert {kind: runs.label for kind, runs in found.best.items()} == {
        "role-free": "colocated",
        "deflecting": "kairos",
        "disaggregated": "static",
    }
    assert found.role_free_ratio is not None
    assert found.role_free_ratio == pytest.approx((0.5, 0.5, 0.5))
    assert found.tied_kinds == []


def test_a_usable_winner_is_within_a_point_of_the_best_attainment(tmp_path: Path) -> None:
    found = contest_of(write_folder(tmp_path / "a"), "usable")
    assert found.winner.label == "kairos"
    assert found.top_attainment == 1.0
    assert list(found.best) == ["deflecting", "disaggregated"]
    assert found.role_free_ratio is None


def test_learned_policies_do_not_win(tmp_path: Path) -> None:
    rules = {**RULES, "mine=runs/policy.npz": (0.1, 1.0), "own.module:Rule": (0.2, 1.0)}
    assert contest_of(write_folder(tmp_path / "a", rules), "lowest").winner.label == "colocated"


def test_a_map_of_learned_policies_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rule to compare"):
        contest_of(write_folder(tmp_path / "a", {"runs/policy.npz": (0.1, 1.0)}), "lowest")


def test_kinds_whose_ratio_may_be_one_are_tied(tmp_path: Path) -> None:
    def scattered(measured: Measured, seed: int) -> Measured:
        return measured[0] + (0.4 if (seed + (measured[0] == 1.0)) % 2 else 0.0), measured[1]

    rules = {"static": (4.0, 1.0), "kairos": (1.0, 1.0), "colocated": (0.95, 1.0)}
    found = contest_of(write_folder(tmp_path / "a", rules, at_seed=scattered), "lowest")
    assert found.winner.label == "colocated"
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


def test_tuned_parameters_are_found_next_to_a_folder_that_moved(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "table", {"static": (2.0, 1.0), "kairos": (1.0, 1.0)}, tuned="gone/tune")
    with pytest.raises(FileNotFoundError, match=r"tune"):
        Folder.read(path)
    (tmp_path / "tune").mkdir()
    budget = {"settings": 18, "runs_per_setting": 30, "requests_per_run": 1000}
    chosen = {"kairos": {"chosen": "kairos:alpha=1.5"}}
    (tmp_path / "tune" / "tuned.json").write_text(json.dumps({"budget": budget, "seeds": [1, 2], "policies": chosen}))
    folder = Folder.read(path)
    assert folder.settings == {"static": "static", "kairos": "kairos=kairos:alpha=1.5"}
    assert "18 settings of each policy" in folder.tuning


OTHER_RULE = {"arrow": (0.7, 1.0)}


@pytest.mark.parametrize(
    ("rules", "options", "reason"),
    [
        (OTHER_RULE, {"cluster": "1P3D"}, "--cluster: 2P2D, 1P3D"),
        (OTHER_RULE, {"cluster": "1P3D", "tbt_slo": 0.03}, "--cluster: 2P2D, 1P3D"),
        (OTHER_RULE, {"loads": [0.7]}, "--loads"),
        (OTHER_RULE, {"workload": ["burst"]}, "--workload"),
        (OTHER_RULE, {"seeds": 5}, "--seeds: 6, 5"),
        (OTHER_RULE, {"rate_rps": 6.0}, "arrow, HPLD, load 0.7, seed 0, ran on other requests than static"),
        ({"static": (2.1, 1.0)}, {}, "static, HPLD, load 0.7, seed 0, had another result"),
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
    cells.write_text(cells.read_text().replace(",1.0\n", ",much\n", 1).replace(",1.0\r\n", ",much\r\n", 1))
    with pytest.raises(InputError, match=r"cells\.csv, line 2"):
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
    draw_map(parse([*map(str, folders), "--out", str(tmp_path / "out"), "--page", str(page)]))
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
    monkeypatch.setattr("experiments.compare.knees", lambda *_, **__: {"burst": 8.0})
    given = "--policies static few=kairos:cap=1 colocated --workload burst --requests 40 --seeds 5 --loads 0.7 1.05"
    compare(parse_compare([*given.split(), "--out", str(tmp_path / "table")]))
    draw_map(parse([str(tmp_path / "table"), "--out", str(tmp_path / "out")]))
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
