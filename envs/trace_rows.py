"""Read the rows of CSV and JSON-lines files, plain or gzip, with their line numbers."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from hardware_profiles.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"

# A line number and the fields of the row that ends there, in the order of `Rows.columns`.
Row = tuple[int, Sequence[Any]]


class Rows(NamedTuple):
    """The rows of a file.

    Attributes:
        columns: the required columns, then the optional ones that the file has.
        rows: an iterator that reads lazily; it raises InputError for a row that cannot be split into fields.
    """

    columns: tuple[str, ...]
    rows: Iterator[Row]


def text_of(path: Path) -> str:
    """Return the text of a plain or gzip file (recognised by its content); InputError if it is neither."""
    raw = path.read_bytes()
    try:
        if raw.startswith(_GZIP_MAGIC):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: damaged gzip file; needs a whole one, or plain text") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text; needs UTF-8, plain or gzip") from None


def row_error(path: Path, line: int, reason: str) -> InputError:
    """Return the error of a bad row."""
    return InputError(f"{path}:{line}: {reason}")


def shown(value: object) -> str:
    """Format a value from a file for a one-line error message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


def csv_rows(path: Path, text: str, required: Sequence[str], optional: Sequence[str] = ()) -> Rows:
    """Return the rows of a CSV with a header; other columns are ignored, and so are blank lines."""
    reader = csv.reader(io.StringIO(text, newline=""))

    def next_row() -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            raise row_error(path, reader.line_num, f"not CSV ({error}); needs comma-separated fields") from None

    header = [name.strip() for name in next_row() or []]
    missing = [name for name in required if name not in header]
    if missing:
        raise row_error(path, 1, f"the header has no {', '.join(missing)}; needs the columns {', '.join(required)}")
    columns = (*required, *(name for name in optional if name in header))
    pick = itemgetter(*(header.index(name) for name in columns))

    def rows() -> Iterator[Row]:
        while (fields := next_row()) is not None:
            if len(fields) == len(header):
                yield reader.line_num, pick(fields)
            elif fields:
                raise row_error(
                    path, reader.line_num, f"has {len(fields)} fields; needs {len(header)}, like the header"
                )

    return Rows(columns, rows())


def json_rows(path: Path, text: str, required: Sequence[str], optional: Sequence[str] = ()) -> Rows:
    """Return the rows of a file with one JSON object per line; other keys and blank lines are ignored.

    Every optional key is a column; its field is None for rows without the key.
    """

    def rows() -> Iterator[Row]:
        for line, content in enumerate(text.split("\n"), start=1):
            if not content.strip():
                continue
            try:
                row = json.loads(content)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise row_error(path, line, f"{shown(content)} is not a JSON object; needs one per line")
            missing = [name for name in required if name not in row]
            if missing:
                raise row_error(path, line, f"no {', '.join(missing)}; needs the keys {', '.join(required)}")
            yield line, [row.get(name) for name in columns]

    columns = (*required, *optional)
    return Rows(columns, rows())
