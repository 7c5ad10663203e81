"""The one parser of all commands: its options are in --help, and mistakes are one line with exit code 2."""

import importlib
import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import experiments
from envs.cluster import ClusterConfig
from experiments.compare import CompareOptions
from experiments.options.cluster_options import NAMES
from experiments.options.parser import CommandOptions, check_counts, check_positive, flag, option, parse
from hardware_profiles import InputError
from hardware_profiles.cli import run_main

ROOT = Path(*experiments.__path__)
COMMANDS = [
    (".".join(["experiments", *path.relative_to(ROOT).with_suffix("").parts]), name)
    for path in sorted(ROOT.rglob("*.py"))
    for name in re.findall(r"^class (\w+)\((?:Command|Run)Options\)", path.read_text(), re.MULTILINE)
]
"""The module and class of the options of every command."""


@dataclass(frozen=True)
class Group:
    group: int | None = option(None, metavar="N", help="called like the group")
    extra: int = option(0, metavar="N", help="how many")
    size: int = option(3, metavar="N", help="how large")
    shares: tuple[float, ...] = option((0.5, 1.0), metavar="X", help="100 % of them")

    def __post_init__(self) -> None:
        check_counts(self, "size")
        check_positive(self, "shares")


@dataclass(frozen=True, kw_only=True)
class Options(CommandOptions):
    names: tuple[str, ...] = option(metavar="W", help="the names")
    group: Group
    kind: Literal["one", "two"] = option("one", help="the kind")
    out: Path | None = option(None, metavar="DIR", help="a folder")
    long_option: bool = option(False, help="a switch")


def read(text: str, kind: type[Any] = Options) -> Any:
    return parse(kind, "toy", "A toy.", text.split())


def named(kind: type[Any]) -> list[str]:
    """The options of a command, as they are typed."""
    hints = get_type_hints(kind)
    found = []
    for one in fields(kind):
        if is_dataclass(hints[one.name]):
            found += named(hints[one.name])
        elif one.metadata:
            found.append(one.name if one.metadata["positional"] else flag(one.name))
    return found


def help_of(kind: type[Any], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        parse(kind, "toy", "A toy.", ["--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


# ---- a toy command ---------------------------------------------------------------------------------------------------


def test_fields_and_groups_are_filled_from_the_command_line() -> None:
    found = read("--names a b --size 4 --shares 0.25 --kind two --out there --long-option")
    assert found == Options(
        typed="python -m experiments.toy --names a b --size 4 --shares 0.25 --kind two --out there --long-option",
        names=("a", "b"),
        group=Group(size=4, shares=(0.25,)),
        kind="two",
        out=Path("there"),
        long_option=True,
    )


def test_what_is_not_given_is_the_default() -> None:
    found = read("--names a")
    assert (found.group, found.kind, found.out, found.long_option) == (Group(), "one", None, False)


def test_values_in_several_places_add_up_and_count_once() -> None:
    assert read("--names a b --names c a").names == ("a", "b", "c")
    assert read("--names a --shares 0.25 --shares 0.5").group.shares == (0.25, 0.5)


def test_a_group_may_be_called_like_one_of_its_options() -> None:
    assert read("--names a --group 5").group == Group(5)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_the_command_as_typed_can_be_typed_again(names: list[str]) -> None:
    import shlex

    given = ["--names", *(name for name in names if not name.startswith("-")), "last"]
    found = parse(Options, "toy", "", given)
    assert shlex.split(found.typed) == ["python", "-m", "experiments.toy", *given]
    assert found.names == tuple(dict.fromkeys(given[1:]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the following arguments are required: --names"),
        ("--names a --size many", "argument --size: invalid int value: 'many'"),
        ("--names a --size 0", "--size 0: must be at least 1"),
        ("--names a --shares 1 0", "--shares 0: must be a finite number above 0"),
        ("--names a --shares nan", "--shares nan: must be a finite number above 0"),
        ("--names a --shares inf", "--shares inf: must be a finite number above 0"),
        ("--names a --kind three", "argument --kind: invalid choice: 'three' (choose from"),
        ("--names a --longer", "unrecognized arguments: --longer"),
        ("--names", "argument --names: expected at least one argument"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_main(lambda: read(text))
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert stderr.startswith(f"error: {says}")
    assert stderr.count("\n") == 1


def test_help_shows_defaults_and_percent_signs(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(Options, capsys)
    for part in (
        "A toy.",
        "how large (default 3)",
        "how many (default 0)",
        "100 % of them (default 0.5 1)",
        "{one,two}",
        "a folder",
        "a switch",
    ):
        assert part in text


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_compare_is_among_the_commands() -> None:
    assert ("experiments.compare", "CompareOptions") in COMMANDS


@pytest.mark.parametrize(("module", "name"), COMMANDS)
def test_every_option_of_a_command_is_in_its_help(module: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = getattr(importlib.import_module(module), name)
    text, options = help_of(kind, capsys), named(kind)
    assert len(set(options)) == len(options)
    for one in options:
        assert re.search(rf"{re.escape(one)}\b", text), one


def test_any_field_of_the_cluster_can_be_set_and_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    text, options = help_of(CompareOptions, capsys), named(CompareOptions)
    other_names = {"report_age_s": "--report-age-ms", "shape": "--cluster"}
    for field in fields(ClusterConfig):
        typed = other_names.get(field.name, flag(field.name))
        assert (field.name in NAMES) != (typed in options)
        assert re.search(rf"\b{field.name}=" if field.name in NAMES else re.escape(typed), text), field.name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "required: --policies"),
        ("--policies static", "give --workload or --trace"),
        ("--policies static --workload burts", "unknown workload 'burts'; did you mean 'burst'?"),
        ("--policies static --workload burst --tbt-slo 100", "--tbt-slo 100: is in seconds; 100 ms is 0.1"),
        ("--policies static --workload burst --ttft-slo 2000", "--ttft-slo 2000: is in seconds; 2000 ms is 2"),
        ("--policies static --workload burst --cluster-option prefx_cache=true", "did you mean 'prefix_cache'?"),
        ("--policies static --workload burst --step-budget loose", "argument --step-budget: invalid choice: 'loose'"),
        ("--policies static --workload burst --jobs 0", "--jobs 0: must be at least 1"),
        ("--policies static --workload burst --first-seed -1", "--first-seed -1: must be 0 or more"),
        ("--policies static --workload burst --loads 1 -1", "--loads -1: must be a finite number above 0"),
    ],
)
def test_a_mistake_in_compare_is_one_line(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    def start() -> None:
        options = parse(CompareOptions, "compare", "", text.split())
        options.machines.config(options.cluster)

    with pytest.raises(SystemExit) as left:
        run_main(start)
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert stderr.startswith("error: ")
    assert says in stderr
    assert stderr.count("\n") == 1


def test_values_are_checked_when_options_are_made_by_hand_too() -> None:
    with pytest.raises(InputError, match="--size -1"):
        Group(size=-1)
