"""Markdown that reads the same on a page and in a repository; what came from a user stays as it was given."""

import re
from collections.abc import Iterable, Sequence

# What may be markup in running text; an underscore is none between letters or digits.
_MARKUP = re.compile(r"[\\`*\[\]<>&#!~]|(?<![^\W_])_|_(?![^\W_])")


def plain(text: str) -> str:
    """`text` as running text in which nothing is markup."""
    return _MARKUP.sub(lambda found: "\\" + found[0], " ".join(text.split()))


def code(text: str) -> str:
    """`text` as a code span."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table: the first `left` columns left, the others right. The cells are Markdown; bars in them are kept."""
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, marks, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def figure(target: str, alt: str, caption: str) -> str:
    """A picture with its caption, which is Markdown, below it."""
    return f"![{plain(alt)}](<{target}>)\n*{caption}*"
