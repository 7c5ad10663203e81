"""The error that a user can mend, and how it names what is known."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Invalid input: a file, row, value or name.

    The text is the single line to print; it names what is wrong and says what would be right.
    """


def unknown_name(kind: str, given: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that nothing has, with the closest known name if one is close.

    Args:
        kind: what the name is of, such as "workload".
        given: the name.
        known: all names there are.
    """
    names = list(known)
    close = get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown {kind} {given!r}; {hint}known: {', '.join(names)}")
