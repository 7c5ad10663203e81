"""Tables as lists of columns, and the Markdown around them; text that came from a user stays as it was given."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from hardware_profiles import InputError

Row = TypeVar("Row")
Key = TypeVar("Key")

# Possible markup in running text; an underscore between letters or digits is none.
_MARKUP = re.compile(r"[\\`*\[\]<>&#!~]|(?<![^\W_])_|_(?![^\W_])")


class Column(NamedTuple, Generic[Row]):
    """A column of a table: its header, the cell of a row, both in Markdown, and whether it is aligned to the left."""

    header: str
    text: Callable[[Row], str]
    left: bool = False


def each(keys: Mapping[str, Key], text: Callable[[Key, Any], str]) -> list[Column[Any]]:
    """One column per key, such as a metric or a policy, by its header."""
    return [Column(header, partial(text, key)) for header, key in keys.items()]


def table(columns: Sequence[Column[Row]], rows: Iterable[Row]) -> str:
    """A Markdown table, one line per row; "" without rows. Bars in cells are kept."""
    lines = [[column.text(row) for column in columns] for row in rows]
    if not lines:
        return ""
    marks = ["---" if column.left else "---:" for column in columns]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in ([column.header for column in columns], *lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (escaped[0], marks, *escaped[1:]))


def plain(text: str) -> str:
    """`text` as running text in which nothing is markup."""
    return _MARKUP.sub(lambda found: "\\" + found[0], " ".join(text.split()))


def code(text: str) -> str:
    """`text` as a code span."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def around_marks(page: Path, begin: str, end: str) -> tuple[str, str, str]:
    """The text of a page up to a mark and with it, between that and another mark, and from the other mark on."""
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    inside, ended, after = rest.partition(end)
    if not begun or not ended:
        raise InputError(f"{page}: the lines {begin} and {end} are missing, or not in this order")
    return before + begin, inside, end + after
