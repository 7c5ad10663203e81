"""Numbers of runs that claims are compared with, on made-up runs."""

from dataclasses import replace
from math import isnan

import pytest

from experiments.analysis.paper.paper_evidence import SLOW_SPEED, Place, SeedRuns, Setting, every_machine, stressed
from hardware_profiles import InputError
from tests.experiments.analysis.paper.made_up_evidence import (
    RDMA,
    SLOW,
    made_up_evidence,
    made_up_group,
    made_up_shares,
)

LOW, HIGH = Place(RDMA, "burst", 0.7), Place(RDMA, "burst", 0.95)


def test_ratios_and_points_are_of_means_over_the_same_seeds() -> None:
    evidence = made_up_evidence({LOW: made_up_group([4.0, 6.0], [1.0, 1.0])})
    assert evidence.cell(LOW, "kairos").ratio("ttft_p95_s").value == pytest.approx(0.2)
    assert evidence.cell(LOW, "kairos").of(slice(0, 1)).ratio("ttft_p95_s").value == pytest.approx(0.25)
    assert evidence.cell(LOW, "kairos").ratio("slo_attainment").value == pytest.approx(1.8)
    assert evidence.cell(LOW, "kairos").points.value == pytest.approx(0.4)
    assert evidence.cell(LOW, "kairos").of(slice(1, None)).points.value == pytest.approx(0.4)


def test_a_ratio_to_no_attainment_is_no_number() -> None:
    evidence = made_up_evidence({LOW: made_up_group([1.0, 1.0], [1.0, 1.0], static_met=0.0, kairos_met=0.5)})
    assert isnan(evidence.cell(LOW, "kairos").ratio("slo_attainment").value)
    assert evidence.cell(LOW, "kairos").points.value == pytest.approx(0.5)


def test_a_ratio_of_no_attainment_has_an_interval() -> None:
    evidence = made_up_evidence({LOW: made_up_group([1.0, 1.0], [1.0, 1.0], kairos_met=0.0)})
    assert evidence.cell(LOW, "kairos").ratio("slo_attainment") == (0.0, 0.0, 0.0)


def test_one_seed_gives_a_number_without_an_interval() -> None:
    evidence = made_up_evidence({LOW: made_up_group([4.0], [1.0])})
    value, low, high = evidence.cell(LOW, "kairos").ratio("ttft_p95_s")
    assert value == pytest.approx(0.25)
    assert isnan(low)
    assert isnan(high)


def test_worse_is_a_longer_tail_or_a_lower_attainment() -> None:
    slower = made_up_group([1.0, 1.1, 1.0], [2.0, 2.1, 2.0])
    lower = made_up_group([1.0, 1.1, 1.0], [1.0, 1.1, 1.0], kairos_met=0.4)
    evidence = made_up_evidence({LOW: slower, HIGH: lower})
    assert evidence.cell(LOW, "kairos").is_worse
    assert evidence.cell(HIGH, "kairos").is_worse
    assert not evidence.cell(HIGH, "kairos-tuned").is_worse


def test_shares_of_the_tail_are_means_over_seeds() -> None:
    evidence = made_up_evidence({LOW: made_up_shares(queue=0.1, exec=0.05, transfer=0.05, decode_wait=0.8)})
    assert evidence.share(LOW, "decode_wait").value == pytest.approx(0.8)


def test_the_best_place_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    lucky = made_up_group([10.0] * 4, [1.0, 1.0, 9.0, 9.0])
    good = made_up_group([10.0] * 4, [5.0] * 4)
    evidence = made_up_evidence({LOW: lucky, HIGH: good})
    cell = evidence.largest([LOW, HIGH], "kairos", "ttft_p95_s")
    assert cell.place == LOW
    assert cell.ratio("ttft_p95_s").value == pytest.approx(0.9)


def test_one_seed_is_chosen_and_measured_on() -> None:
    evidence = made_up_evidence({LOW: made_up_group([10.0], [5.0])})
    assert evidence.largest([LOW], "kairos", "ttft_p95_s").ratio("ttft_p95_s").value == pytest.approx(0.5)


def test_a_place_without_a_number_is_not_the_best() -> None:
    none = made_up_group([1.0] * 2, [1.0] * 2, static_met=0.0)
    worse = made_up_group([1.0] * 2, [1.0] * 2, static_met=0.9, kairos_met=0.1)
    evidence = made_up_evidence({LOW: none, HIGH: worse})
    assert evidence.largest([LOW, HIGH], "kairos", "slo_attainment").place == HIGH


def test_main_cells_are_those_at_the_main_loads_that_were_run() -> None:
    group = made_up_group([1.0] * 2, [1.0] * 2)
    stress = Place(stressed([RDMA])[0], "burst", 0.95)
    evidence = made_up_evidence({HIGH: group, Place(RDMA, "burst", 2.0): group, stress: group, LOW: group})
    assert evidence.main == [LOW, HIGH]
    assert evidence.hard == [stress]
    assert [place.load for place in evidence.swept[RDMA]] == [0.7, 0.95, 2.0]
    assert evidence.shown_load == 0.95


def test_runs_of_some_seeds_are_runs() -> None:
    cell = made_up_evidence({LOW: made_up_group([4.0, 6.0, 8.0], [1.0] * 3)}).cell(LOW, "kairos")
    assert isinstance(cell.of(slice(1)).base, SeedRuns)
    assert cell.of(slice(1, None)).base.mean("ttft_p95_s") == pytest.approx(7.0)


def test_settings_differ_in_what_they_say() -> None:
    machines = every_machine(["a100-qwen3-8b"], ["rdma", "small-descriptors"])
    assert machines == [RDMA, SLOW]
    assert [setting.config.profile.inter_node.bandwidth_bytes_per_s for setting in machines] == [20.8e9, 0.715e9]
    starved, other, unlike = stressed(machines[:1])
    assert [starved.config.shape, other.config.shape] == ["1P3D", "3P1D"]
    assert unlike.config.node_speeds == (1.0, 1.0, 1.0, SLOW_SPEED)
    assert {setting.plain for setting in (starved, other, unlike)} == {RDMA}
    assert len({str(setting) for setting in [*machines, starved, other, unlike]}) == 5


def test_an_age_of_reports_does_not_change_the_unit_of_loads() -> None:
    late = replace(stressed([RDMA])[0], report_age_s=1.0)
    assert late.config.report_age_s == 1.0
    assert late.default_age == stressed([RDMA])[0]


def test_every_setting_has_the_papers_engine_with_a_fixed_step_budget() -> None:
    assert {setting.config.step_budget for setting in [RDMA, *stressed([RDMA])]} == {"fixed"}


def test_a_profile_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match="no profile named 'nonsense'"):
        _ = Setting("nonsense", "rdma").config
