"""The SLOs of a command line."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.slos import DEFAULT_SLOS, SloClass, Slos
from experiments.options.parser import CommandOptions, parse
from experiments.options.slo_options import SloOptions
from hardware_profiles import InputError


@dataclass(frozen=True, kw_only=True)
class Command(CommandOptions):
    slos: SloOptions


def slos(text: str) -> Slos:
    return parse(Command, "any", "", text.split()).slos.slos()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DEFAULT_SLOS),
        ("--ttft-slo 3", Slos.of(3.0, 0.1)),
        ("--tbt-slo 0.03", Slos.of(2.0, 0.03)),
        ("--ttft-slo-per-1k-tokens 0", Slos.of(2.0, 0.1, 0.0)),
        ("--ttft-slo 1 --tbt-slo 0.2 --ttft-slo-per-1k-tokens 0.5", Slos.of(1.0, 0.2, 0.5)),
        ("--slo-class 1:3:0.2", Slos.of(3.0, 0.2, 0.0)),
        ("--slo-class 0.3:1:0.05:0.5 0.7:10:0.2", Slos((SloClass(1, 0.05, 0.5, 0.3), SloClass(10, 0.2, 0.0, 0.7)))),
        ("--slo-class 0.5:1:0.1 --slo-class 0.5:2:0.1", Slos((SloClass(1, 0.1, 0.0, 0.5), SloClass(2, 0.1, 0.0, 0.5)))),
    ],
)
def test_options_become_slos(text: str, expected: Slos) -> None:
    assert slos(text) == expected


@given(ttft_s=st.floats(0.001, 600), tbt_s=st.floats(0.001, 10))
def test_any_slo_in_range_comes_through(ttft_s: float, tbt_s: float) -> None:
    assert slos(f"--ttft-slo {ttft_s} --tbt-slo {tbt_s}") == Slos.of(ttft_s, tbt_s)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--ttft-slo 0", "--ttft-slo 0: must be a finite number above 0"),
        ("--tbt-slo nan", "--tbt-slo nan: must be a finite number above 0"),
        ("--tbt-slo 100", "--tbt-slo 100: is in seconds; 100 ms is 0.1"),
        ("--ttft-slo 1500", "--ttft-slo 1500: is in seconds; 1500 ms is 1.5"),
        ("--ttft-slo-per-1k-tokens -1", "--ttft-slo-per-1k-tokens -1: must be finite seconds, 0 or more"),
        ("--slo-class 0.5:1", "--slo-class 0.5:1: '0.5:1' is not of the form SHARE:TTFT:TBT or"),
        ("--slo-class 1:1:0.1:0:0", "is not of the form"),
        ("--slo-class nan:1:0.1", "share nan: must be above 0, at most 1"),
        ("--slo-class half:1:0.1", "'half:1:0.1' is not of the form SHARE:TTFT:TBT"),
        (
            "--slo-class 0.5:1:0.1",
            "--slo-class 0.5:1:0.1: the shares of the SLO classes add up to 0.5",
        ),
        ("--slo-class 0.5:1:0.1 0.5:-1:0.1", "ttft_slo_s -1: must be finite seconds above 0"),
        ("--slo-class 1:1:0.1 --tbt-slo 0.1", "--tbt-slo goes without --slo-class only"),
    ],
)
def test_invalid_slos_are_one_line_that_names_the_option(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        slos(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
