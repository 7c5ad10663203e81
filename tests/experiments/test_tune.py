"""The tune command: equal budgets, runs that are kept, and a file that compare checks before it uses it."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from envs.cluster import ClusterConfig
from envs.cluster.config import StepBudget
from envs.slos import DEFAULT_SLOS, SloClass, Slos
from experiments import capacity, compare, train, tune
from experiments.analysis.bootstrap import Interval
from experiments.capacity import CapacityOptions
from experiments.compare import CompareOptions
from experiments.learning import kairos_setting
from experiments.options.parser import parse
from experiments.runs.data_splits import TUNING_SEEDS
from experiments.runs.saturation import write_knees
from experiments.runs.search_space import default, settings, tunable
from experiments.runs.tuning import Cost, TunedSettings, best, made_for
from experiments.train import TrainOptions
from experiments.tune import TuneOptions
from hardware_profiles import InputError, load_profile
from policies import PolicySpec
from tests.experiments.short_knees import shorten_knees
from tests.refusal import refused
from tests.toy import toy_profile

SMALL = "--workload burst --loads 0.9 --seeds 2 --requests 60 --settings 3"


@pytest.fixture(scope="module", autouse=True)
def _small_knees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten_knees(patch, 60)
        yield


def run(arguments: str, out: Path) -> None:
    tune.run(parse(TuneOptions, "tune", "", [*arguments.split(), "--out", str(out)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _small_knees: None) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    run(f"{SMALL} --policies kairos shortest-ttft", out)
    return out


def test_the_file_names_everything_that_was_tried(folder: Path) -> None:
    found = json.loads((folder / "tuned.json").read_text())
    assert found["budget"] == {"settings": 3, "runs_per_setting": 2, "requests_per_run": 60}
    assert found["seeds"] == list(TUNING_SEEDS[:2])
    for rule in ("kairos", "shortest-ttft"):
        tried = {PolicySpec.parse(one.pop("policy")): Cost(**one) for one in found["policies"][rule]["tried"]}
        assert list(tried) == settings(PolicySpec.parse(rule), 3)
        assert found["policies"][rule]["chosen"] == str(best(tried))


def test_a_tuning_run_that_was_cut_off_is_the_only_one_repeated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((folder / "tuned.json").read_text())["policies"]
    index = folder / "runs" / "results.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 3 * 2
    index.write_text("".join(lines[:-1]) + lines[-1][:20])
    run(f"{SMALL} --policies shortest-ttft kairos", folder)
    assert "11 of 12 tuning runs are finished already\n[1/1] tuning" in capsys.readouterr().err
    assert json.loads((folder / "tuned.json").read_text())["policies"] == before


def test_given_knees_are_rates_per_node(tmp_path: Path) -> None:
    knees, config = tmp_path / "knees.json", ClusterConfig(load_profile("a100-qwen3-8b"))
    write_knees({"burst": Interval(8.0, 7.5, 8.5)}, config, knees)
    run(f"{SMALL} --policies static-share --settings 1 --cluster 1P2D --knees {knees}", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tuned.json").read_text())["knees_rps"] == {"burst": 6.0}
    with pytest.raises(InputError, match=r"knees.json: has no knee of LPLD; it has those of burst"):
        run(f"--policies kairos --workload LPLD --knees {knees}", tmp_path / "other")
    assert not (tmp_path / "other").exists()


TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(
    f"{i * 0.1},{1000 + i % 7 * 900},{5 + i % 11}\n" for i in range(1200)
)


@pytest.mark.slow
def test_a_trace_is_tuned_on_one_part_and_compared_on_another(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.csv", tmp_path / "tuned"
    path.write_text(TRACE)
    trace = f"--trace {path} --trace-format native"
    run(f"{trace} --policies kairos --settings 2 --loads 0.8", out)
    found = json.loads((out / "tuned.json").read_text())
    assert found["workloads"] == ["mine"]
    assert found["seeds"] == [TUNING_SEEDS[0]]
    assert found["budget"]["runs_per_setting"] == 1
    given = f"{trace} --trace-part test --policies static kairos --loads 0.5 0.8 --tuned {out} --out {tmp_path / 'out'}"
    compare.run(parse(CompareOptions, "compare", "", given.split()))
    rows = list(csv.DictReader((tmp_path / "out" / "cells.csv").read_text().splitlines()))
    assert [(row["policy"], row["load"]) for row in rows] == [
        (policy, load) for load in ("0.5", "0.8") for policy in ("static", "kairos")
    ]
    with gzip.open(tmp_path / "out" / "requests.csv.gz", "rt") as file:
        requests = [row for row in csv.DictReader(file) if (row["policy"], row["load"]) == ("static", "0.5")]
    assert len(requests) == 300  # the last quarter
    scale = found["knee_rate_scale"]
    gaps_s = np.diff([float(row["arrival_s"]) for row in requests])
    assert gaps_s == pytest.approx(0.1 / (0.5 * scale), rel=1e-6)
    assert f"{scale:.3g}" in (tmp_path / "out" / "summary.md").read_text()


def test_a_part_of_a_trace_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(TRACE)
    for given, says in (
        ("--workload burst --trace-part test", "--trace-part goes with --trace only"),
        (f"--trace {path} --trace-format native --trace-part test --seeds 2", "one set of requests"),
    ):
        with refused(says):
            compare.run(parse(CompareOptions, "compare", "", [*given.split(), "--policies", "static"]))
    with refused("--knees goes with --workload only"):
        run(f"--trace {path} --trace-format native --knees x.json", tmp_path / "out")


@pytest.mark.slow
def test_compare_runs_the_tuned_setting_under_the_rules_name(folder: Path, tmp_path: Path) -> None:
    chosen = TunedSettings.read(folder).chosen
    given = "--policies static kairos kairos:cap=1 --workload burst --loads 0.9 --seeds 1 --requests 60"
    arguments = [*given.split(), "--tuned", str(folder / "tuned.json"), "--out", str(tmp_path / "out")]
    compare.run(parse(CompareOptions, "compare", "", arguments))
    rows = (tmp_path / "out" / "cells.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["static", "kairos", "kairos:cap=1"]
    command = json.loads((tmp_path / "out" / "command.json").read_text())
    assert command["policies"] == ["static", f"kairos={chosen['kairos']}", "kairos:cap=1"]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert f"kairos {chosen['kairos'].partition(':')[2]}" in summary
    assert f"seeds {TUNING_SEEDS[0]} to {TUNING_SEEDS[1]}" in summary


def test_a_file_for_other_conditions_is_refused_and_named(folder: Path, tmp_path: Path) -> None:
    found = TunedSettings.read(folder)
    config = ClusterConfig(load_profile("a100-qwen3-8b"))
    assert TunedSettings.read_for(folder, config, DEFAULT_SLOS) == found
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
            TunedSettings.read_for(folder, other, slos)
    assert found.of(PolicySpec.parse("static")) == PolicySpec.parse("static")
    aged = replace(config, report_age_s=1.0)
    assert TunedSettings.read_for(folder, aged, DEFAULT_SLOS) == found  # may be varied to see its effect
    with pytest.raises(InputError, match="splitwise was not tuned"):
        found.of(PolicySpec.parse("splitwise"))
    for text in ("[]", "{}", "[{}]", "not JSON", '{"policies": {"kairos": {}}}'):
        path = tmp_path / "tuned.json"
        path.write_text(text)
        with pytest.raises(InputError, match="not a file that experiments"):
            TunedSettings.read(path)


def test_settings_tuned_for_one_step_budget_are_refused_for_the_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = f"--policies kairos --workload burst --step-budget fixed --tuned {folder} --out {out}"
    with pytest.raises(InputError, match=r"tuned.json: tuned for step_budget slo, not fixed"):
        compare.run(parse(CompareOptions, "compare", "", given.split()))
    assert not out.exists()


CONDITIONS = tuple(product((0.025, 0.1), get_args(StepBudget)))
"""TBT SLOs and step budgets."""


@pytest.fixture(scope="module")
def joined(folder: Path) -> Path:
    """A folder of joined settings, made of copies of one file; each chose another setting for other conditions."""
    contents = json.loads((folder / "tuned.json").read_text())
    folders = []
    for number, (tbt_s, step_budget) in enumerate(CONDITIONS):
        slos = [{**contents["slos"][0], "tbt_s": tbt_s}]
        entries = {
            name: {**entry, "chosen": entry["tried"][number % 3]["policy"]}
            for name, entry in contents["policies"].items()
        }
        folders.append(folder.parent / f"{number}")
        folders[-1].mkdir()
        changed = {**contents, "slos": slos, "step_budget": step_budget, "policies": entries}
        (folders[-1] / "tuned.json").write_text(json.dumps(changed))
    out = folder.parent / "joined"
    run(f"--join {' '.join(map(str, folders))}", out)
    return out


def at(tbt_s: float, step_budget: StepBudget, shape: str = "2P2D") -> tuple[ClusterConfig, Slos]:
    profile = load_profile("a100-qwen3-8b")
    return ClusterConfig(profile, shape=shape, step_budget=step_budget), Slos.of(tbt_s=tbt_s)


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_of_joined_settings_those_for_the_conditions_are_used(joined: Path, number: int) -> None:
    config, slos = at(*CONDITIONS[number])
    one = TunedSettings.read(joined.parent / f"{number}")
    found = TunedSettings.read_for(joined, config, slos)
    assert {name: found.contents[name] for name in made_for(config, slos)} == made_for(config, slos)
    assert (found.chosen, found.costs(), found.budget) == (one.chosen, one.costs(), one.budget)
    for name in ("kairos", "shortest-ttft"):
        spec = PolicySpec.parse(name)
        assert found.of(spec) == one.of(spec)
        (base,) = [tried for tried in one.contents["policies"][name]["tried"] if tried["policy"] == str(default(spec))]
        assert {"policy": base["policy"], **found.contents["policies"][name]["default"]} == base
    other, _ = at(*CONDITIONS[number], "1P3D")
    assert TunedSettings.read_for(joined, other, slos, any_shape=True) == found
    with refused("nothing was tuned for a100-qwen3-8b, 1P3D"):
        TunedSettings.read_for(joined, other, slos)


def test_joining_joined_settings_changes_nothing(joined: Path, tmp_path: Path) -> None:
    run(f"--join {joined}", tmp_path)
    assert (tmp_path / "tuned.json").read_bytes() == (joined / "tuned.json").read_bytes()


LISTS_ALL = tuple(
    f"step budget {budget} with TTFT 2 s, TBT 0.025 s or TTFT 2 s, TBT 0.1 s" for budget in ("slo", "fixed")
)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--tbt-slo 0.2", ("nothing was tuned for", "TBT 0.2 s", *LISTS_ALL)),
        ("--ttft-slo 1", ("nothing was tuned for", "TTFT 1 s", *LISTS_ALL)),
        ("--profile a100-llama31-8b", ("nothing was tuned for a100-llama31-8b", *LISTS_ALL)),
        ("--connector nixl-default-ucx", ("tuned for a profile or connector of digest",)),
    ],
)
def test_conditions_without_settings_are_refused_with_a_list(
    arguments: str, says: tuple[str, ...], joined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = [*arguments.split(), "--out", str(out)]
    rules = ["--policies", "static", "kairos", "--tuned", str(joined)]
    with refused(*says, out=out):
        compare.run(parse(CompareOptions, "compare", "", [*rules, "--workload", "burst", *given]))
    with refused(*says, out=out):
        capacity.run(parse(CapacityOptions, "capacity", "", [*rules, "--splits", "3P1D", *given]))
    monkeypatch.setattr(kairos_setting, "SHIPPED", joined)
    with refused(*says, "--rules tune or --rules default", out=out):
        train.run(parse(TrainOptions, "train", "", given))


def test_a_rule_that_was_tuned_in_two_forms_gets_the_better_one() -> None:
    def of(**attainments: float) -> TunedSettings:
        entries = {
            f"shortest-ttft:choices={choices}": {
                "chosen": f"shortest-ttft:alpha=0.6,choices={choices}",
                "cost": 1.0 - attainment,
                "attainment": attainment,
            }
            for choices, attainment in attainments.items()
        }
        return TunedSettings(Path("tuned.json"), {"policies": entries})

    plain = PolicySpec.parse("shortest-ttft")
    for better, worse in [("pairs", "deflection"), ("deflection", "pairs")]:
        found = of(**{better: 0.9, worse: 0.8})
        assert found.of(plain) == PolicySpec.parse(f"shortest-ttft=shortest-ttft:alpha=0.6,choices={better}")
        form = PolicySpec.parse(f"shortest-ttft:choices={worse}")
        assert found.of(form) == PolicySpec.parse(found.chosen[form.text])


def test_settings_ship_for_each_condition_of_the_protocol() -> None:
    for tbt_s, step_budget in product((0.025, 0.03, 0.05, 0.1), get_args(StepBudget)):
        shipped = TunedSettings.read_for(Path("shipped"), *at(tbt_s, step_budget))
        for name in ("static", *tunable()):
            tuned = shipped.of(PolicySpec.parse(name))
            assert tuned.label == name
            tuned.make()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--join {joined} {joined}/../0", "both were tuned for a100-qwen3-8b, 2P2D, step budget slo with TTFT 2 s"),
        ("--join {joined} --policies kairos", "--join tunes nothing"),
        ("--join {joined} --tbt-slo 0.05", "--join tunes nothing"),
        ("--join {joined}/command.json", "not a file that experiments.tune wrote"),
    ],
)
def test_files_that_cannot_be_joined_are_named(arguments: str, says: str, joined: Path, tmp_path: Path) -> None:
    with refused(says, out=tmp_path / "out"):
        run(arguments.format(joined=joined), tmp_path / "out")


def test_a_folder_is_not_joined_into_itself(joined: Path) -> None:
    before = (joined / "tuned.json").read_bytes()
    for given in (joined, joined / "tuned.json"):
        with refused("tuned.json: is one of the files to join"):
            run(f"--join {given}", joined)
    with refused("has settings for", *LISTS_ALL):
        TunedSettings.read(joined)
    assert (joined / "tuned.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies static", "policy static has no knobs to tune"),
        ("--policies nonsense", "unknown policy to tune 'nonsense'"),
        ("--policies kaiross:cap=1", "unknown policy to tune 'kaiross:cap=1'; did you mean 'kairos'?"),
        ("--policies kairos:cup=1", "policy kairos has no knob 'cup'"),
        ("--workload nonsense", "unknown workload 'nonsense'"),
        ("--settings 0", "--settings 0"),
        ("--loads -1", "--loads -1"),
        ("--jobs 0", "--jobs 0"),
        ("--cluster 2D2P", "2D2P"),
    ],
)
def test_invalid_tune_options_are_named_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    with refused(says, out=tmp_path / "out"):
        run(arguments, tmp_path / "out")
