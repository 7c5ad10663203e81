"""The teachers of a distillation: how results of rules are averaged, and which rule teaches."""

from dataclasses import replace

import numpy as np
import pytest

from agents.distillation import ATTAINMENT_MARGIN, Played, best_rule
from envs.cluster import ClusterConfig
from experiments.learning.distilled_start import Lesson, draw_episode, padded, shared_out
from experiments.learning.mixture import Setting
from experiments.runs.requests import Family
from hardware_profiles import load_profile

SETTING = Setting("burst", Family("burst", 8.0), ClusterConfig(load_profile("a100-qwen3-8b")))
OTHER = replace(SETTING, name="another")


def lesson(number: int, where: tuple[float, float], p95_s: float, setting: Setting = SETTING) -> Lesson:
    return Lesson(0, number, setting, where, (Played(p95_s, 1.0), Played(1.0, 0.5)))


def test_the_best_rule_has_the_lowest_p95_of_those_that_meet_the_slos() -> None:
    assert best_rule([Played(0.1, 0.9), Played(0.3, 1.0), Played(0.2, 1.0 - 0.5 * ATTAINMENT_MARGIN)]) == 2


def test_lessons_far_away_or_of_other_settings_do_not_count() -> None:
    here, far, other = lesson(0, (0.0, 0.0), 0.2), lesson(1, (50.0, 0.0), 0.9), lesson(2, (0.0, 0.0), 0.9, OTHER)
    assert here.smoothed([here, far, other])[0].ttft_p95_s == pytest.approx(0.2)


def test_lessons_at_one_place_have_equal_weights_and_p95_is_averaged_in_logarithms() -> None:
    lessons = [lesson(number, (1.0, 2.0), p95_s) for number, p95_s in enumerate((0.1, 0.4))]
    first, second = lessons[0].smoothed(lessons)
    assert first.ttft_p95_s == pytest.approx(0.2)
    assert (second.ttft_p95_s, second.attainment) == (pytest.approx(1.0), pytest.approx(0.5))


def test_an_episode_depends_on_its_seed_and_number_alone() -> None:
    first, again, other = (draw_episode(SETTING.source, 3, number)[0] for number in (5, 5, 6))
    assert np.array_equal(first.arrival_s, again.arrival_s)
    assert not np.array_equal(first.arrival_s[:100], other.arrival_s[:100])


def test_padding_adds_masked_rows_of_zeros() -> None:
    examples = {"choices": np.ones((3, 4, 2)), "action_mask": np.ones((3, 4)), "actions": np.arange(3)}
    wider = padded(examples, 6)
    assert wider["choices"].shape == (3, 6, 2)
    assert not wider["choices"][:, 4:].any()
    assert not wider["action_mask"][:, 4:].any()
    assert wider["actions"] is examples["actions"]


def test_settings_are_shared_out_by_their_gaps_and_none_is_left_out() -> None:
    third = replace(SETTING, name="third")
    found = shared_out(100, {SETTING: 0.3, OTHER: 0.1, third: 0.0})
    counts = [found.count(setting) for setting in (SETTING, OTHER, third)]
    assert sum(counts) == 100
    assert counts == [71, 26, 3]
    assert len(shared_out(100, {SETTING: 0.0, OTHER: 0.0})) == 100
