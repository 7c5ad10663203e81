"""Alarms on series made by hand: when they fire, how long before a break, and which are false."""

from itertools import pairwise
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, Samples, Topology
from experiments.analysis import alarms
from experiments.analysis.early_warning import (
    HORIZON_S,
    LEAST,
    WINDOW_S,
    Break,
    JudgedAlarm,
    Verdict,
    Watched,
    breaks,
    calibrate,
    false_rate,
    fired_s,
    judge,
    running_p95,
)
from experiments.analysis.request_table import as_array
from tests.experiments.made_up import record
from tests.toy import TOY_LAW, toy_profile

TIME_S = np.arange(0.0, 400.5, 0.5)


def on(*spans: tuple[float, float]) -> np.ndarray:
    """A signal of 1 from the first to the second of each pair of times, 0 elsewhere."""
    signal = np.zeros(len(TIME_S))
    for start_s, end_s in spans:
        signal[(start_s <= TIME_S) & (end_s >= TIME_S)] = 1.0
    return signal


def verdict(signal: np.ndarray, *broken: Break) -> Verdict:
    return judge(Watched(TIME_S, signal, broken), 0.5)


@given(
    st.lists(
        st.tuples(st.one_of(st.floats(0, 100), st.just(nan)), st.floats(0, 10)),
        max_size=80,
    )
)
def test_a_running_p95_is_that_of_the_window(events: list[tuple[float, float]]) -> None:
    event_s, values = np.array(events).reshape(-1, 2).T
    time_s = np.arange(0.0, 150.0, 7.0)
    for at_s, found in zip(time_s, running_p95(event_s, values, time_s), strict=True):
        window = values[(event_s > at_s - WINDOW_S) & (event_s <= at_s)]
        if len(window) < LEAST:
            assert isnan(found)
        else:
            assert found == pytest.approx(np.quantile(window, 0.95), rel=1e-12)


def test_breaks_within_one_window_of_each_other_are_one_break() -> None:
    p95 = 2 * on((100, 110), (139.5, 141), (171.5, 172))
    p95[0] = nan
    assert breaks(TIME_S, p95) == [Break(100, 171), Break(171.5, 202)]
    assert breaks(TIME_S, on((0, 400))) == []  # the SLO itself does not break it


@given(lead_s=st.integers(0, 2 * int(HORIZON_S)).map(lambda n: n / 2))
def test_the_lead_is_the_time_from_the_alarm_to_the_break(lead_s: float) -> None:
    assert verdict(on((100 - lead_s, 120)), Break(100, 160)).leads_s == [lead_s]


def test_an_alarm_in_the_break_is_late_and_one_that_never_comes_missed() -> None:
    assert verdict(on((107.5, 109)), Break(100, 160)).leads_s == [-7.5]
    assert verdict(on((160.5, 170)), Break(100, 160)).leads_s == [-inf]
    assert verdict(np.full(len(TIME_S), nan), Break(100, 160)).leads_s == [-inf]


def test_an_alarm_too_early_is_false_and_fires_again() -> None:
    """On from 25 s: false at 25 s, silent until 55 s, and false again until 85 s, 15 s before the break."""
    assert verdict(on((25, 400)), Break(100, 160)) == Verdict([15], [25, 55, 190, 220, 250, 280, 310, 340], 70 + 210)


def test_chatter_is_one_alarm() -> None:
    assert verdict(on((50, 50), (55, 55), (60, 61), (79.5, 79.5), (80, 80))).false_s == [50, 80]


def test_an_alarm_that_a_break_leaves_on_has_been_raised() -> None:
    """It is silent for HORIZON_S after the break; one that comes on anew is not."""
    assert verdict(on((95, 189.5)), Break(100, 160)) == Verdict([5], [], 280)
    assert verdict(on((95, 190)), Break(100, 160)) == Verdict([5], [190], 280)
    assert verdict(on((95, 150), (161, 162)), Break(100, 160)) == Verdict([5], [161], 280)


def test_two_breaks_have_a_lead_each() -> None:
    signal = on((98, 165), (196, 205))
    assert verdict(signal, Break(100, 160), Break(200, 240)) == Verdict([2, 4], [], 70 + 10 + 130)


def test_alarms_near_the_end_of_the_watch_are_not_false() -> None:
    """The watch ends at 400 s: a break within HORIZON_S of an alarm at 370 s or later would not have been seen."""
    assert verdict(on((369.5, 369.5))).false_s == [369.5]
    assert verdict(on((370, 400))) == Verdict([], [], 370)


@given(threshold=st.floats(0.9, 1), seed=st.integers(0, 2**31))
def test_false_alarms_and_leads_keep_their_bounds(threshold: float, seed: int) -> None:
    broken = [Break(100, 160), Break(170, 200)]
    found = judge(Watched(TIME_S, np.random.default_rng(seed).random(len(TIME_S)), broken), threshold)
    assert all(lead_s <= HORIZON_S for lead_s in found.leads_s)
    assert found.leads_s[1] <= 10  # alarms during the first break belong to it
    for at_s in found.false_s:
        assert at_s < TIME_S[-1] - HORIZON_S
        assert not any(0 <= one.start_s - at_s <= HORIZON_S or one.start_s < at_s < one.end_s for one in broken)
    between = [(a, b) for a, b in pairwise(found.false_s) if not any(a < one.start_s < b for one in broken)]
    assert all(b - a >= HORIZON_S for a, b in between)


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    """Bumps of 1, 2, ... 5 at 60 s from each other in 370 quiet seconds: two above the threshold are 19.5 per hour."""
    signal = np.zeros(len(TIME_S))
    for height in range(1, 6):
        signal[60.0 * height == TIME_S] = height
    run = Watched(TIME_S, signal, [])
    for allowed, kept in ((0, 5), (1, 4), (2, 3), (5, 0)):
        threshold = calibrate([run], (allowed + 0.5) * 3600 / 370)
        assert threshold == pytest.approx(kept, abs=1)
        assert len(judge(run, threshold).false_s) == allowed


def test_without_a_quiet_time_or_a_signal_there_is_no_threshold() -> None:
    signal = on((50, 100))
    assert isnan(calibrate([Watched(TIME_S, signal, [Break(0, 500)])], 1.0))
    assert isnan(calibrate([Watched(TIME_S, np.full(len(TIME_S), nan), [])], 1.0))
    assert isnan(false_rate([Verdict([], [], 0.0)]))
    assert judge(Watched(TIME_S, signal, [Break(60, 90)]), nan) == Verdict([-inf], [], 30 + 280)


def test_missed_breaks_count_last_in_the_median_lead() -> None:
    verdicts = [Verdict([4.0, -inf], [10.0], 1800.0), Verdict([1.0], [], 1800.0), Verdict([], [5.0, 50.0], 3600.0)]
    others = [Verdict([-3.0, -inf], [], 1800.0), Verdict([2.0], [], 1800.0), Verdict([], [], 3600.0)]
    found = JudgedAlarm(1.0, verdicts, others)
    assert found.leads_s.tolist() == [4.0, -inf, 1.0]
    assert found.lead_s.value == 1.0
    assert isnan(found.lead_s.low)  # two runs with a break say nothing about others
    assert found.in_time.value == pytest.approx(2 / 3)
    assert found.missed == pytest.approx(1 / 3)
    assert found.earlier.value == 0.5  # one, none, and equally missed
    assert false_rate(verdicts) == 1.5


def test_without_breaks_there_is_no_lead() -> None:
    found = JudgedAlarm(1.0, [Verdict([], [], 60.0)], [Verdict([], [], 60.0)])
    assert not len(found.leads_s)
    assert isnan(found.lead_s.value)
    assert isnan(found.missed)


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from([-inf, -5.0, 0.0, 1.0, 2.5]), min_size=1, max_size=3), min_size=5, max_size=20)
)
def test_intervals_hold_their_estimates(leads: list[list[float]]) -> None:
    verdicts = [Verdict(of_run, [], 60.0) for of_run in leads]
    found = JudgedAlarm(1.0, verdicts, verdicts)
    flat = sorted(lead_s for of_run in leads for lead_s in of_run)
    assert found.lead_s.value == flat[(len(flat) - 1) // 2]
    for interval in (found.lead_s, found.in_time, found.earlier):
        assert interval.low <= interval.value <= interval.high
    assert found.earlier == (0.5, 0.5, 0.5)


def samples(tokens: np.ndarray) -> Samples:
    """Samples half a second apart with these prompt tokens queued, shape (n, nodes)."""
    zeros = np.zeros_like(tokens)
    time_s = 0.5 * np.arange(len(tokens))
    return Samples(time_s, 2, np.full(tokens.shape[1], 1.0), zeros, tokens, *[zeros] * 7)


def test_the_queue_wait_is_queued_tokens_over_the_prefill_rate() -> None:
    topology = Topology(ClusterConfig(toy_profile(), node_speeds=(1.0, 0.5, 1.0, 1.0)))
    rate = 1.5 * 2048 / TOY_LAW.time_s([(2048, 0)], 0, 0)
    tokens = np.array([[3000.0, 0.0, 500.0, 0.0], [1000.0, 5000.0, 0.0, 0.0]])
    assert alarms.queue_wait_s(samples(tokens), topology) == pytest.approx([3000 / rate, 6000 / rate])


def test_the_trend_of_a_line_is_its_slope() -> None:
    slope = alarms.trend(3.0 * 0.5 * np.arange(100), 0.5)
    assert slope[0] == pytest.approx(0.0)
    assert slope[20:] == pytest.approx(3.0)


def test_each_alarm_reads_its_signal() -> None:
    """A request every half second; each waits 3 s for its first token and takes 5 s in all."""
    records = as_array([record(i, 0.5 * i, [1.0, 1.0, 0.5, 0.5], decode_s=2.0) for i in range(100)])
    tokens = np.repeat(np.linspace(0.0, 4000.0, 120)[:, None], 4, axis=1)
    topology = Topology(ClusterConfig(toy_profile()))
    found = alarms.signals(samples(tokens), 0.5, records, np.full(100, 2.0), topology)
    assert found.time_s[-1] == 49.5  # the last arrival
    known = found.time_s >= 3.0 + 0.5 * LEAST
    assert found.ttft_p95[known] == pytest.approx(1.5)
    assert found.by_alarm[alarms.TTFT][known] == pytest.approx(1.5)
    assert found.by_alarm[alarms.END_TO_END][found.time_s >= 5.0 + 0.5 * LEAST] == pytest.approx(5.0)
    wait_s = found.by_alarm[alarms.QUEUE_WAIT]
    ahead_s = found.by_alarm[alarms.QUEUE_TREND][-1] - wait_s[-1]
    assert ahead_s == pytest.approx(alarms.AHEAD_S * (wait_s[-1] - wait_s[-3]))


def test_firings_are_false_ones_true_ones_and_late_ones() -> None:
    run = Watched(TIME_S, on((20, 21), (95, 96), (210, 211)), [Break(100, 160), Break(200, 240)])
    assert fired_s(run, 0.5) == [20, 95, 210]
