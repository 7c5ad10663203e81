"""How numbers and names are printed."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.slos import Slos
from experiments.analysis.bootstrap import Interval
from experiments.analysis.metrics import METRICS, Metric
from experiments.reports import formatting as show
from policies import PolicySpec


def test_shares_stay_between_0_and_100() -> None:
    assert show.share(Interval(0.97, 0.92, 1.04)) == "97.0 [92.0, 100.0]"
    assert show.share(Interval(0.01, -0.02, 0.04)) == "1.0 [0.0, 4.0]"
    assert show.points(Interval(-0.97, -1.2, -0.9)) == "-97.0 [-100.0, -90.0]"
    assert show.change(Interval(0.1, -0.5, 0.7)) == "-90.0 [-100.0, -30.0]"
    assert show.change(Interval(0.5, 1e-9, 3e12)) == "-50.0 [-100.0, over +99999]"


def test_a_value_without_an_interval_stands_alone() -> None:
    assert show.latency(Interval(0.0123, nan, nan)) == "12.3"
    assert show.latency(Interval(nan, nan, nan)) == "none"
    assert show.with_interval(Interval(2.0, 1.0, inf), "{:g}".format) == "2 [1, inf]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0"), (0.00123, "1.2"), (0.9994, "999.4"), (1.0, "1,000"), (12.3456, "12,346")]
)
def test_seconds_are_printed_in_milliseconds(seconds: float, text: str) -> None:
    assert show.ms(seconds) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0.0"), (0.0004, "0.040"), (0.0005, "0.1"), (0.12345, "12.3")])
def test_a_small_share_is_not_printed_as_zero(share: float, text: str) -> None:
    assert show.percent(share) == text


@given(st.floats(-1e6, 1e6))
def test_a_sign_stands_before_every_number_but_zero(value: float) -> None:
    text = show.signed("{:.3f}".format)(value)
    assert text.startswith("+") == (value > 0)
    assert float(text) == pytest.approx(value, abs=1e-3)


@given(st.floats(0.001, 1e4))
def test_a_ratio_has_two_or_three_digits(ratio: float) -> None:
    text = show.times(ratio)
    assert float(text) == pytest.approx(ratio, rel=0.06)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_has_a_heading_and_prints_its_values(metric: Metric) -> None:
    assert show.heading(metric).startswith(metric.title)
    assert show.value(metric, nan) == "none"
    float(show.value(metric, 3.0).replace(",", ""))


def test_names_say_whether_a_policy_is_learned() -> None:
    learned, rule = PolicySpec.parse("mine=runs/x/policy.npz"), PolicySpec.parse("kairos:alpha=1.5")
    assert (show.name(learned), show.label(learned)) == ("`mine` (learned)", "mine (learned)")
    assert (show.name(rule), show.label(rule)) == ("`kairos:alpha=1.5`", "kairos:alpha=1.5")
    assert show.label(PolicySpec.parse("lookahead")) == "lookahead (clairvoyant)"


def test_listings_end_and_counts_have_their_noun() -> None:
    assert show.listing([]) == ""
    assert show.listing(["a"]) == "a"
    assert show.listing(["a", "b", "c"]) == "a, b and c"
    assert show.listing(list("abcdef")) == "a, b, c and 3 more"
    assert show.listing(list("abcdef"), most=6) == "a, b, c, d, e and f"
    assert [show.counted(1, "seed"), show.counted(3, "seed")] == ["1 seed", "3 seeds"]
    assert show.counted(2, "policy", "policies") == "2 policies"


def test_a_report_says_which_workload_had_which_slos() -> None:
    flat, grows = Slos.of(2.0, 0.1), Slos.of(2.0, 0.1, 0.25)
    same = "SLOs (not from a paper): TTFT 2 s, TBT 0.1 s"
    assert show.slos_line({"burst": flat, "LPLD": flat}) == same
    assert show.slos_line({"mine": flat}, native=True) == f"{same}; a native trace's own columns come first"
    assert show.slos_line({"burst": flat, "LPLD": flat, "mooncake-conv": grows}) == (
        "SLOs (not from a paper): burst, LPLD: TTFT 2 s, TBT 0.1 s; "
        "mooncake-conv: TTFT 2 s + 0.25 s per 1,000 prompt tokens, TBT 0.1 s"
    )
