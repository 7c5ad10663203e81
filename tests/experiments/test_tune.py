"""Tuning: equal budgets, requests of its own, runs that are kept, and a file that compare takes for what it is."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig, Placement, RequestView, RouterView
from envs.generators import generate
from envs.objective import DEFAULT_OBJECTIVE
from envs.slos import DEFAULT_SLOS, SloClass, Slos
from experiments import tune as module
from experiments.cells import Cell
from experiments.compare import compare
from experiments.compare import parse as parse_compare
from experiments.cost import Tried, best, measure
from experiments.knobs import default, settings
from experiments.sources import TUNING_SEEDS
from experiments.tune import parse, tune
from experiments.tuned import Tuned
from experiments.tuning import tuned
from hardware_profiles import InputError
from tests.toy import toy_profile

TUNABLE = [name for name in policies.names() if policies.grid(name)]
SMALL = "--workload burst --loads 0.9 --seeds 2 --requests 60 --settings 3"


@pytest.fixture(autouse=True)
def _same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about commands and inputs; someone may edit the code while they run."""
    for name in ("tune", "compare"):
        monkeypatch.setattr(f"experiments.{name}.simulation_digest", lambda: "code")


@given(rule=st.sampled_from(TUNABLE), count=st.integers(1, 40))
def test_every_policy_gets_the_same_number_of_settings_its_default_among_them(rule: str, count: int) -> None:
    names = settings(rule, count)
    size = prod(len(values) for values in policies.grid(rule).values())
    assert len(set(names)) == len(names) == min(count, size)
    assert default(rule) in names
    assert names == settings(rule, count)


def test_a_sample_of_a_grid_uses_each_value_about_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"alpha": (1.0, 1.3, 2.0), "beta": (0.8, 0.9, 1.0), "cap": (1, 2, 4, 8), "transfer": (True, False)}
    monkeypatch.setattr(policies.registry._RULES["kairos"], "grid", grid)
    names = settings("kairos", 25)[1:]
    for knob, values in grid.items():
        times = [
            sum(f"{knob}={str(value).lower() if knob == 'transfer' else value}" in n for n in names) for value in values
        ]
        assert sum(times) == 24
        assert max(times) - min(times) <= 4  # 1, but for the few that were drawn twice and drawn again


def test_of_settings_that_attain_as_much_the_cheapest_is_best() -> None:
    tried = {"cheap": Tried(0.1, 0.90), "good": Tried(0.5, 0.99), "nearly": Tried(0.4, 0.985)}
    assert best(tried) == "nearly"
    assert best({**tried, "all": Tried(0.9, 1.0)}) == "good"


class TurnsAway:
    """Takes every second request."""

    name = "turns-away"

    def place(self, request: RequestView, view: RouterView) -> Placement | None:  # noqa: ARG002
        return None if request.number % 2 else Placement(0, 2)


def test_turning_requests_away_is_no_way_to_be_cheap() -> None:
    workload = generate("burst", rate_rps=1.0, requests=100, seed=1)
    config = ClusterConfig(toy_profile())
    kept, turned_away = (measure(policy, workload, config) for policy in ("static", f"{__name__}:TurnsAway"))
    assert turned_away.cost > kept.cost
    assert turned_away.attainment <= 0.5 < kept.attainment


def test_the_same_knobs_are_best_whatever_the_order_of_the_runs() -> None:
    workloads = [generate("burst", rate_rps=8.0, requests=80, seed=seed) for seed in (1, 2)]
    config = ClusterConfig(toy_profile())
    chosen, tried = tuned(
        "kairos", [(workload, config) for workload in workloads], objective=DEFAULT_OBJECTIVE, count=4
    )
    assert chosen == best(tried)
    for name, found in tried.items():
        each = [measure(name, workload, config) for workload in workloads]
        assert found.cost == pytest.approx(sum(one.cost for one in each) / 2)
        assert found.attainment == pytest.approx(sum(one.attainment for one in each) / 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tune", "compare"):
            patch.setattr(f"experiments.{name}.simulation_digest", lambda: "code")
        tune(parse([*SMALL.split(), "--policies", "kairos", "shortest-ttft", "--out", str(out)]))
    return out


def test_the_file_says_what_was_tried_and_on_what(folder: Path) -> None:
    found = json.loads((folder / "tuned.json").read_text())
    assert found["budget"] == {"settings": 3, "runs_per_setting": 2, "requests_per_run": 60}
    assert found["seeds"] == list(TUNING_SEEDS[:2])
    for rule in ("kairos", "shortest-ttft"):
        tried = {one["policy"]: Tried(one["cost"], one["attainment"]) for one in found["policies"][rule]["tried"]}
        assert list(tried) == settings(rule, 3)
        assert found["policies"][rule]["chosen"] == best(tried)


def test_finished_runs_are_kept_and_a_line_that_was_cut_off_is_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((folder / "tuned.json").read_text())["policies"]
    (path,) = (folder / "cells").glob("tried-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 2 * 3 * 2
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    seen = []
    run_trial = module.run_trial
    monkeypatch.setattr(module, "run_trial", lambda trial: seen.append(trial.cell) or run_trial(trial))
    tune(parse([*SMALL.split(), "--policies", "shortest-ttft", "kairos", "--out", str(folder)]))
    assert seen == [Cell(*json.loads(lines[-1])[0])]
    assert path.read_text().splitlines(keepends=True) == lines
    assert json.loads((folder / "tuned.json").read_text())["policies"] == before


@pytest.mark.slow
def test_compare_runs_what_was_chosen_under_the_policys_own_name(folder: Path, tmp_path: Path) -> None:
    chosen = Tuned.read(folder).chosen
    out = tmp_path / "out"
    given = "--policies static kairos kairos:cap=1 --workload burst --loads 0.9 --seeds 1 --requests 60"
    compare(parse_compare([*given.split(), "--tuned", str(folder / "tuned.json"), "--out", str(out)]))
    rows = (out / "cells.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["static", "kairos", "kairos:cap=1"]
    names = [json.loads(path.read_text())["cell"]["policy"] for path in (out / "cells").glob("*seed0*.json")]
    assert sorted(names) == sorted(["static", f"kairos={chosen['kairos']}", "kairos:cap=1"])
    summary = (out / "summary.md").read_text()
    assert f"kairos {chosen['kairos'].partition(':')[2]}" in summary
    assert f"seeds {TUNING_SEEDS[0]} to {TUNING_SEEDS[1]}" in summary


def test_a_file_for_something_else_is_refused_and_named(folder: Path, tmp_path: Path) -> None:
    found = Tuned.read(folder)
    ours = parse_compare(["--policies", "kairos", "--workload", "burst"])
    config = module.cluster(ours, "2P2D")
    found.check(config, DEFAULT_SLOS)
    slow = replace(config, profile=config.profile.with_connector("nixl-default-ucx"))
    for other, slos, says in [
        (replace(config, shape="1P3D"), DEFAULT_SLOS, "cluster 2P2D, not 1P3D"),
        (config, Slos.of(1.0), "slos .*'ttft_s': 2.0.* not .*'ttft_s': 1.0"),
        (config, Slos.of(ttft_per_1k_tokens_s=0.5), "slos .*'ttft_per_1k_tokens_s': 0.5"),
        (config, Slos((SloClass(share=0.5), SloClass(1.0, share=0.5))), "slos .*'share': 0.5"),
        (slow, DEFAULT_SLOS, "digest"),
        (replace(config, step_budget="fixed"), DEFAULT_SLOS, "step_budget slo, not fixed"),
        (ClusterConfig(toy_profile()), DEFAULT_SLOS, "profile a100-qwen3-8b, not toy"),
    ]:
        with pytest.raises(InputError, match=f"tuned.json: tuned for .*{says}"):
            found.check(other, slos)
    found.check(replace(config, report_age_s=1.0), DEFAULT_SLOS)  # what is varied to see what it does
    with pytest.raises(InputError, match="splitwise was not tuned"):
        found.replace(["static", "splitwise"])
    for text in ("[]", "{}", "not JSON", '{"policies": {"kairos": {}}}'):
        path = tmp_path / "tuned.json"
        path.write_text(text)
        with pytest.raises(InputError, match="not a file that experiments"):
            Tuned.read(path)


def test_knobs_tuned_for_one_step_budget_are_refused_for_the_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = f"--policies kairos --workload burst --seeds 1 --requests 60 --tuned {folder} --out {out}"
    with pytest.raises(InputError, match=r"tuned.json: tuned for step_budget slo, not fixed") as error:
        compare(parse_compare([*given.split(), "--step-budget", "fixed"]))
    assert "\n" not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies static", "policy static has no knobs to tune"),
        ("--policies nonsense", "no registered policy 'nonsense'"),
        ("--policies nothing:cap=1", "no registered policy 'nothing:cap=1'"),
        ("--policies kairos:cup=1", "policy kairos has no knob 'cup'"),
        ("--workload nonsense", "unknown workload 'nonsense'"),
        ("--settings 0", "--settings 0"),
        ("--loads -1", "--loads -1"),
        ("--jobs 0", "--jobs 0"),
        ("--cluster 2D2P", "2D2P"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        tune(parse([*arguments.split(), "--out", str(out)]))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


def test_knobs_that_are_named_stay_as_they_are() -> None:
    found = settings("shortest-ttft:choices=pairs", 18)
    assert len(found) == len(policies.grid("shortest-ttft")["alpha"])
    assert all(name.endswith(",choices=pairs") for name in found)
    assert "shortest-ttft:alpha=1.0,choices=pairs" in found
