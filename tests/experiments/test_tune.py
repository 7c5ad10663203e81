"""The tune command: equal budgets, runs that are kept, and a file that compare checks before it uses it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envs.cluster import ClusterConfig
from envs.slos import DEFAULT_SLOS, SloClass, Slos
from experiments import compare, tune
from experiments.compare import CompareOptions
from experiments.options.parser import parse
from experiments.runs.data_splits import TUNING_SEEDS
from experiments.runs.search_space import settings
from experiments.runs.tuning import Cost, TunedSettings, best
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
    assert found.of(PolicySpec.parse("static")) == PolicySpec.parse("static")
    found.check(replace(config, report_age_s=1.0), DEFAULT_SLOS)  # may be varied to see its effect
    with pytest.raises(InputError, match="splitwise was not tuned"):
        found.of(PolicySpec.parse("splitwise"))
    for text in ("[]", "{}", "not JSON", '{"policies": {"kairos": {}}}'):
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


def test_settings_that_ship_are_used_by_name() -> None:
    shipped = TunedSettings.read(Path("shipped"))
    shipped.check(ClusterConfig(load_profile("a100-qwen3-8b")), DEFAULT_SLOS)
    specs = [shipped.of(PolicySpec.parse(name)) for name in ("static", "kairos", "colocated")]
    assert [spec.label for spec in specs] == ["static", "kairos", "colocated"]
    for spec in specs:
        spec.make()


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
