"""The settings of the episodes that the members of a portfolio play."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.cluster import ClusterConfig, evenly_divided, parse_shape
from envs.objective import Objective
from envs.slos import MOONCAKE_TTFT_PER_1K_TOKENS_S
from envs.variation import Variation
from experiments.learning.distilled_start import draw_episode
from experiments.learning.mixture import Setting
from experiments.learning.selection_settings import drawn_settings, varied, work_s
from experiments.runs.requests import Family, TraceRequests
from hardware_profiles import load_profile

SETTING = Setting("burst", Family("burst", 8.0), ClusterConfig(load_profile("a100-qwen3-8b")))
RANGE_S = (0.08, 0.12)
RANGE = replace(SETTING, source=Family("burst", 8.0, tbt_range_s=RANGE_S))
SLOW_NODE = replace(SETTING, name="slow", config=replace(SETTING.config, node_speeds=(1.0, 1.0, 1.0, 0.7)))
PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"


def _kind_of(setting: Setting) -> str:
    if setting.config.node_speeds is not None:
        return "speed"
    if setting.config.disturbances:
        return "misjudged"
    if isinstance(setting.source, Family) and setting.source.variation is not None:
        return "varied"
    return "rates" if "rates" in setting.name else "shape"


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_settings_is_on_other_clusters_that_the_protocol_does_not_have(share: float) -> None:
    sets = PROTOCOL.read_text().partition("## Amendments")[0]
    drawn = drawn_settings([RANGE, replace(RANGE, name="other")], 960, 1, share)
    assert drawn == drawn_settings([RANGE, replace(RANGE, name="other")], 960, 1, share)
    others = [one for one in drawn if one.name not in ("burst", "other")]
    assert len(others) == share * 960
    kinds: dict[str, list[Setting]] = {"shape": [], "speed": [], "misjudged": [], "rates": [], "varied": []}
    for one in others:
        kinds[_kind_of(one)].append(one)
    for kind, several in kinds.items():
        expected = (2 if kind in ("rates", "varied") else 1) / 7
        assert len(several) / len(others) == pytest.approx(expected, abs=0.06)
    for one in kinds["shape"] + kinds["rates"]:
        assert isinstance(one.source, Family)
        factor = one.source.unit_rps / sum(parse_shape(one.config.shape)) / (8.0 / 4)
        assert 1.4 - 1e-9 < factor < 3.0 + 1e-9 if one in kinds["rates"] else factor == pytest.approx(1.0)
        assert one.config.shape == "2P2D" or one.config.shape not in sets
        assert evenly_divided(*parse_shape(one.config.shape)) == parse_shape(one.config.shape)
    for one in kinds["speed"]:
        assert one.source in (RANGE.source, SETTING.source)
        assert one.config.node_speeds is not None
        assert sorted(one.config.node_speeds)[1:] == [1.0, 1.0, 1.0]
        assert min(one.config.node_speeds) != 0.6
    assert {one.config.node_speeds.index(min(one.config.node_speeds)) for one in kinds["speed"]} == {0, 3}
    misjudged = {tuple(event.node for event in one.config.disturbances) for one in kinds["misjudged"]}
    assert misjudged == {(0, 1), (2, 3), (0, 1, 2, 3)}
    for one in kinds["varied"]:
        assert isinstance(one.source, Family)
        assert one.source.variation is not None
        assert 0.7 <= one.source.unit_rps * work_s(one) / (8.0 * work_s(SETTING)) <= 1.6
        assert one.config == RANGE.config
    assert 0.3 < sum(one.source.variation.pause_s > 0.0 for one in kinds["varied"]) / len(kinds["varied"]) < 0.7
    growing = [one for one in kinds["varied"] if one.source.own_slos.flat_ttft_s is None]
    assert 0.1 < len(growing) / len(kinds["varied"]) < 0.5
    for one in kinds["speed"] + kinds["misjudged"]:
        assert one.environment("pairs", 16, Objective()).unwrapped.config == one.config
        assert 0.8 not in [event.factor for event in one.config.disturbances]
    assert [one.name.split()[0].strip(",") for one in drawn] == ["burst", "other"] * 480


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_half_of_the_settings_has_the_slos_of_the_evaluation(share: float) -> None:
    drawn = drawn_settings([RANGE], 80, 1, share)
    sources = [one.source for one in drawn]
    assert sum(isinstance(one, Family) and one.tbt_range_s is None for one in sources) == 40
    assert drawn.count(RANGE) == drawn.count(SETTING) == 40 * (1.0 - share)
    workloads = [draw_episode(SETTING.source, 0, number)[0] for number in range(3)]
    for workload in workloads:
        assert set(workload.tbt_slo_s) == {SETTING.tbt_slo_s}
        assert set(workload.ttft_slo_s) == {SETTING.ttft_slo_s}


def test_other_clusters_include_other_profiles() -> None:
    names = ("a100-deepseek-v2-lite", "h100-llama31-8b")
    of_each = {name: replace(SETTING.config, profile=load_profile(name)) for name in names}
    both = [RANGE, replace(RANGE, name="other")]
    elsewhere = [[replace(one, config=config) for one in both] for config in of_each.values()]
    drawn = drawn_settings(both, 400, 1, 0.5, elsewhere)
    assert sum(one.name not in ("burst", "other") or one.config != SETTING.config for one in drawn) == 200
    for name in names:
        assert 200 / 9 - 10 < sum(one.config.profile.name == name for one in drawn) < 200 / 9 + 10
    assert [one.name.split()[0].strip(",") for one in drawn] == ["burst", "other"] * 200
    others = [one for one in drawn if one.config.profile.name in names]
    tighter = [one for one in others if "TBT SLOs" in one.name]
    assert 0.3 < len(tighter) / len(others) < 0.7
    for one in tighter:
        assert isinstance(one.source, Family)
        factor = one.tbt_slo_s / SETTING.tbt_slo_s
        assert 0.5 <= factor <= 0.95
        assert one.ttft_slo_s == SETTING.ttft_slo_s
        if one.source.tbt_range_s is not None:
            assert RANGE.source.tbt_range_s is not None
            assert one.source.tbt_range_s == pytest.approx([factor * limit for limit in RANGE.source.tbt_range_s])
    less_kv = [one for one in others if one.config not in of_each.values()]
    assert 0.3 < len(less_kv) / len(others) < 0.7
    for one in less_kv:
        whole = of_each[one.config.profile.name].profile
        assert replace(one.config.profile, kv_capacity_tokens=whole.kv_capacity_tokens) == whole
        assert 0.1 * whole.kv_capacity_tokens <= one.config.profile.kv_capacity_tokens < whole.kv_capacity_tokens


def test_settings_with_fields_of_single_nodes_keep_their_shape() -> None:
    assert set(drawn_settings([SLOW_NODE], 12, 1, 0.5)) == {SLOW_NODE}


def test_a_trace_has_only_its_own_slos() -> None:
    trace = Setting("trace", TraceRequests(Path("absent.csv"), "azure"), SETTING.config)
    assert set(drawn_settings([trace], 12, 1, 0.5)) == {trace}


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_a_request_takes_more_of_a_node_with_longer_prompts_or_outputs(factor: float) -> None:
    def of(prompt: float, output: float) -> float:
        return work_s(replace(SETTING, source=replace(SETTING.source, variation=Variation(prompt, output))))

    assert of(1.0, 1.0) == work_s(SETTING)
    before = of(factor, factor)
    assert before < of(2.0 * factor, factor) < 2.0 * before  # a chunk's cost does not depend on earlier ones
    assert before < of(factor, 2.0 * factor)


def test_a_growing_ttft_slo_is_that_of_the_changed_prompts() -> None:
    rng = np.random.default_rng(0)
    drawn = [one.source for one in (varied(SETTING, rng) for _ in range(20)) if isinstance(one.source, Family)]
    growing = [source for source in drawn if source.own_slos.flat_ttft_s is None]
    assert growing
    for source in growing:
        requests = source.draw(200, 1.0, 1)
        expected_s = source.slos.classes[0].ttft_s + MOONCAKE_TTFT_PER_1K_TOKENS_S * requests.prompt_tokens / 1000
        assert requests.ttft_slo_s == pytest.approx(expected_s)
