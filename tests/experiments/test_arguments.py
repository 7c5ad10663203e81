"""The SLOs of a command line."""

import pytest

from envs.slos import DEFAULT_SLOS, SloClass, Slos
from experiments.arguments import add_slos, slos
from experiments.printed import slos_line
from hardware_profiles import InputError
from hardware_profiles.cli import Parser


def given(text: str) -> Slos:
    parser = Parser(prog="any")
    add_slos(parser)
    return slos(parser.parse_args(text.split()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DEFAULT_SLOS),
        ("--ttft-slo 3", Slos.of(3.0, 0.1)),
        ("--tbt-slo 0.03", Slos.of(2.0, 0.03)),
        ("--ttft-slo-per-1k-tokens 0", Slos.of(2.0, 0.1, 0.0)),
        ("--ttft-slo 1 --tbt-slo 0.2 --ttft-slo-per-1k-tokens 0.5", Slos.of(1.0, 0.2, 0.5)),
        ("--slo-class 1:3:0.2", Slos.of(3.0, 0.2)),
        ("--slo-class 0.3:1:0.05:0.5 0.7:10:0.2", Slos((SloClass(1, 0.05, 0.5, 0.3), SloClass(10, 0.2, None, 0.7)))),
        ("--slo-class 0.5:1:0.1 --slo-class 0.5:2:0.1", Slos((SloClass(1, share=0.5), SloClass(2, share=0.5)))),
    ],
)
def test_options_become_slos(text: str, expected: Slos) -> None:
    assert given(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--ttft-slo 0", "--ttft-slo 0: must be a finite number above 0"),
        ("--tbt-slo nan", "--tbt-slo nan"),
        ("--ttft-slo-per-1k-tokens -1", "--ttft-slo-per-1k-tokens -1: must be finite seconds, 0 or more"),
        ("--slo-class 0.5:1", "--slo-class 0.5:1: '0.5:1' is not of the form SHARE:TTFT:TBT or"),
        ("--slo-class 1:1:0.1:0:0", "is not of the form"),
        ("--slo-class half:1:0.1", "'half:1:0.1' is not of the form SHARE:TTFT:TBT"),
        (
            "--slo-class 0.5:1:0.1",
            "--slo-class 0.5:1:0.1: the shares of the SLO classes add up to 0.5",
        ),
        ("--slo-class 0.5:1:0.1 0.5:-1:0.1", "ttft_slo_s -1: must be finite seconds above 0"),
        ("--slo-class 1:1:0.1 --tbt-slo 0.1", "--tbt-slo goes without --slo-class only"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        given(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_says_which_workload_had_which_slos() -> None:
    flat, grows = Slos.of(2.0, 0.1), Slos.of(2.0, 0.1, 0.25)
    same = "SLOs (not from a paper): TTFT 2 s, TBT 0.1 s"
    assert slos_line({"burst": flat, "LPLD": flat}) == same
    assert slos_line({"mine": flat}, native=True) == f"{same}; a native trace's own columns come first"
    assert slos_line({"burst": flat, "LPLD": flat, "mooncake-conv": grows}) == (
        "SLOs (not from a paper): burst, LPLD: TTFT 2 s, TBT 0.1 s; "
        "mooncake-conv: TTFT 2 s + 0.25 s per 1,000 prompt tokens, TBT 0.1 s"
    )
