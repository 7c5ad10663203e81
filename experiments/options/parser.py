"""One parser for all commands: options are the fields of frozen dataclasses, which may hold groups of options.

A field made with `option` becomes `--field-name`; a field whose type is a dataclass is a group, whose options are the
command's own. A dataclass checks its values in `__post_init__`, so an object that exists is valid.
"""

import shlex
import sys
import types
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from math import inf
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from hardware_profiles import InputError
from hardware_profiles.cli import Parser, run_main

T = TypeVar("T")


def option(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 - argparse's word
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    positional: bool = False,
) -> Any:
    """A field that is an option; one without a default is required, and one that is positional has no name.

    Help shows the default unless it is None, empty or False, and the value as `metavar`.
    """
    metadata = {"help": help, "metavar": metavar, "choices": choices, "positional": positional}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Base of the options of every command: the command as typed, from `python` on; not part of the identity."""

    typed: str = field(default="", repr=False)


def parse(kind: type[T], name: str, description: str, argv: Sequence[str] | None = None) -> T:
    """Read the command line of this process, or `argv`, as the options of a command such as "compare".

    Raises InputError (a value that cannot be) and SystemExit (--help, or arguments that cannot be read).
    """
    given = sys.argv[1:] if argv is None else list(argv)
    parser = Parser(prog=f"python -m experiments.{name}", description=description, argument_default=SUPPRESS)
    _add(parser, kind)
    found = vars(parser.parse_args(given))
    found["typed"] = f"python -m experiments.{name} {shlex.join(given)}".rstrip()
    options: T = _build(kind, found)
    return options


def command(kind: type[T], run: Callable[[T], None], name: str, description: str) -> NoReturn:
    """Run a command as a process: read its options, run it, exit with its code."""
    run_main(lambda: run(parse(kind, name, description)))


def _add(parser: Parser, kind: Any) -> None:
    hints = get_type_hints(kind)
    for one in fields(kind):
        if is_dataclass(hints[one.name]):
            _add(parser, hints[one.name])
        elif one.metadata:
            _add_option(parser, one, hints[one.name])


def _add_option(parser: Parser, one: Field[Any], hint: Any) -> None:
    metadata = one.metadata
    if get_origin(hint) in (Union, types.UnionType):  # with None
        hint = get_args(hint)[0]
    settings: dict[str, Any] = {"help": metadata["help"].replace("%", "%%") + _shown(one.default)}
    if hint is bool:
        settings["action"] = "store_true"
    else:
        several = get_origin(hint) is tuple
        item = get_args(hint)[0] if several else hint
        literal = get_args(item) if get_origin(item) is Literal else None
        settings |= {"type": str if literal else item, "metavar": metadata["metavar"]}
        settings |= {"choices": literal or metadata["choices"]}
        settings |= {"nargs": "+", "action": "extend"} if several else {}
    if metadata["positional"]:
        parser.add_argument(one.name, **settings)
    else:
        parser.add_argument(flag(one.name), required=one.default is MISSING, **settings)


def _shown(default: Any) -> str:
    if default == () or any(default is none for none in (MISSING, None, False)):  # 0 is shown
        return ""
    values = default if isinstance(default, tuple) else [default]
    return f" (default {' '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)})"


def _build(kind: Any, found: dict[str, Any]) -> Any:
    """The options of a command or group; those that were not given have their defaults, repeated values count once."""
    hints = get_type_hints(kind)
    groups = {name: _build(hint, found) for name, hint in hints.items() if is_dataclass(hint)}
    given = {name: found[name] for name in hints if name in found}
    several = {name: tuple(dict.fromkeys(value)) for name, value in given.items() if isinstance(value, list)}
    return kind(**{**given, **several, **groups})  # a group may be called like one of its options


def flag(name: str) -> str:
    """A field as it is typed."""
    return "--" + name.replace("_", "-")


def check_counts(options: object, *names: str) -> None:
    """Raise InputError if one of these fields is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{flag(name)} {value}: must be at least 1")


def check_positive(options: object, *names: str) -> None:
    """Raise InputError if one of these fields, a number or several, is not finite and above 0."""
    for name in names:
        given = getattr(options, name)
        for value in given if isinstance(given, tuple) else [given]:
            if value is not None and not 0 < value < inf:
                raise InputError(f"{flag(name)} {value:g}: must be a finite number above 0")
