"""Readers for recorded workloads, and reader and writer for the native format.

| format   | file       | columns                                           | clock                          |
|----------|------------|---------------------------------------------------|--------------------------------|
| azure    | CSV        | TIMESTAMP, ContextTokens, GeneratedTokens         | dates; 0 is the first one      |
| vidur    | CSV        | arrived_at, num_prefill_tokens, num_decode_tokens | seconds                        |
| mooncake | JSON lines | timestamp, input_length, output_length            | milliseconds                   |
|          |            | and, optionally per row, hash_ids                 |                                |
|          | or CSV     | (timestamp_ms in the CSV, no hash_ids)            |                                |
| burstgpt | CSV        | Timestamp, Request tokens, Response tokens        | seconds                        |
| native   | CSV        | arrival_s, prompt_tokens, output_tokens           | seconds                        |
|          |            | and, optionally, ttft_slo_s, tbt_slo_s,           |                                |
|          |            | hash_ids (separated by spaces)                    |                                |

hash_ids are the block hashes of `Workload`; hashes beyond the prompt's length are dropped. Other columns are ignored.
Files are plain or gzip. An invalid row is an error of the form `file:line: reason`. A request generates at least one
token, so a row with zero tokens is invalid, except in BurstGPT, which records failed requests that way: they are
dropped, and the label states their number. Rows out of order are sorted (rows with equal times stay in file order), and
the label says so.

By default all requests have the same SLOs (envs.slos). The TTFT SLO of a mooncake trace grows by 0.25 s per 1,000
prompt tokens, because its longest prompts of more than 100,000 tokens cannot meet 2 s; this default is not from a
paper.
"""

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.slos import DEFAULT_SLOS, MOONCAKE_TTFT_PER_1K_TOKENS_S, Slos
from envs.streams import stream
from envs.trace_rows import Rows, csv_rows, json_rows, row_error, shown, text_of
from envs.workload import HASH_BLOCK_TOKENS, FloatArray, Workload
from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TOKENS = 10**9  # of one request; a larger number is an error in the file
_SLO_COLUMNS = ("ttft_slo_s", "tbt_slo_s")
_HASH_COLUMN = "hash_ids"
_TICK_STREAM = 101

# Exceptions of parsing an invalid field; OverflowError is a whole number too large for a float.
_NOT_ONE = (TypeError, ValueError, OverflowError)


class _Kind(NamedTuple):
    """A kind of value: its parser, which raises one of _NOT_ONE, and a description for error messages."""

    parse: Callable[[Any], Any]
    right: str


class _Format(NamedTuple):
    columns: tuple[str, str, str]
    clock: _Kind
    ticks_per_s: float
    tokens: _Kind
    ttft_per_1k_tokens_s: float = 0.0  # default of the format's SLOs


def _date_us(value: Any) -> float:
    # A float holds whole microseconds since 1970 exactly, but not seconds. A date without a zone is in UTC.
    date = datetime.fromisoformat(value)
    return float(((date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1))


def _number(low: float, high: float, *, whole: bool) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        number = float(value)
        # JSON's true is a number in Python. NaN fails the comparison.
        if not low <= number <= high or number == inf or value is True or value is False:
            raise ValueError
        if whole and not number.is_integer():
            raise ValueError
        return number

    return parse


def _hash_ids(value: Any) -> tuple[int, ...]:
    numbers = value.split() if isinstance(value, str) else [] if value is None else value
    if not isinstance(numbers, list) or any(isinstance(number, (bool, float)) for number in numbers):
        raise TypeError
    return tuple([int(number) for number in numbers])


_TOKENS = _Kind(_number(1, _MAX_TOKENS, whole=True), f"a whole number of tokens from 1 to {_MAX_TOKENS}")
_TOKENS_OR_FAILED = _Kind(
    _number(0, _MAX_TOKENS, whole=True),
    f"a whole number of tokens from 0 (a failed request) to {_MAX_TOKENS}",
)
_DATE = _Kind(_date_us, "a date and time such as 2023-11-16 18:17:03.9799600")
_SECONDS = _Kind(_number(0, inf, whole=False), "finite seconds, 0 or more")
_MILLISECONDS = _Kind(_number(0, inf, whole=False), "finite milliseconds, 0 or more")
_OPTIONAL = {
    **dict.fromkeys(_SLO_COLUMNS, _Kind(_number(np.nextafter(0.0, 1.0), inf, whole=False), "finite seconds above 0")),
    _HASH_COLUMN: _Kind(_hash_ids, "a list of whole numbers"),
}

_FORMATS = {
    "azure": _Format(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _DATE, 1e6, _TOKENS),
    "vidur": _Format(("arrived_at", "num_prefill_tokens", "num_decode_tokens"), _SECONDS, 1, _TOKENS),
    "mooncake": _Format(
        ("timestamp", "input_length", "output_length"), _MILLISECONDS, 1e3, _TOKENS, MOONCAKE_TTFT_PER_1K_TOKENS_S
    ),
    "burstgpt": _Format(("Timestamp", "Request tokens", "Response tokens"), _SECONDS, 1, _TOKENS_OR_FAILED),
    "native": _Format(("arrival_s", "prompt_tokens", "output_tokens"), _SECONDS, 1, _TOKENS),
}


def formats() -> tuple[str, ...]:
    """Return the names of the formats that can be read."""
    return tuple(_FORMATS)


def slos_of_format(format: str, slos: Slos = DEFAULT_SLOS) -> Slos:  # noqa: A002 - as in `read_trace`
    """Return `slos` with the format's default for values that they leave open.

    Raises:
        InputError: the format is unknown.
    """
    return slos.with_default(_format(format).ttft_per_1k_tokens_s)


def _format(name: str) -> _Format:
    if name not in _FORMATS:
        raise InputError(f"unknown trace format {shown(name)}; known: {', '.join(formats())}")
    return _FORMATS[name]


def read_trace(
    path: str | os.PathLike[str],
    format: str,  # noqa: A002 - the word users type: --trace-format
    *,
    rate_scale: float = 1.0,
    limit: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    subsample: float | None = None,
    seed: int = 0,
    slos: Slos = DEFAULT_SLOS,
) -> Workload:
    """Read a trace, and then slice, subsample, rescale and limit it, in this order.

    The clock of Mooncake's conversation trace ticks every three seconds. If most rows share their time with another
    row, arrivals are drawn uniformly within their tick, in file order, and the label says so. The coefficient of
    variation of the inter-arrival times is then near 1, as in traces with a finer clock; even spacing would give 0.3.

    Args:
        path: the file, plain or gzip.
        format: one of `formats()`.
        rate_scale: factor by which to compress time; 2 doubles the rate.
        limit: number of requests to keep, from the first.
        start_s: start of the slice, in seconds of the trace's clock (before compression); it becomes time 0.
        end_s: end of the slice, exclusive; None: the end of the trace.
        subsample: share of requests to keep, chosen at random.
        seed: seed of the subsample, of the arrivals within a tick and of the SLO classes.
        slos: SLOs of the requests, see `slos_of_format`; SLO columns of a native file take precedence. A request's
            class depends on its position in the whole file.

    Raises:
        InputError: the format is unknown, the file or a row is invalid, or an argument is out of range.
        OSError: the file cannot be opened.
    """
    workload = _read(Path(path), format, seed, slos_of_format(format, slos))
    if start_s != 0 or end_s is not None:
        workload = workload.window(start_s, end_s)
    if subsample is not None:
        workload = workload.subsample(subsample, seed)
    workload = workload.rate_scale(rate_scale)
    return workload if limit is None else workload.head(limit)


def write_native(workload: Workload, path: str | os.PathLike[str]) -> None:
    """Write a workload without its label as native CSV (gzip if the name ends in .gz), atomically.

    Reading it back gives the same numbers, bit for bit.
    """
    target = Path(path)
    columns = (*_FORMATS["native"].columns, *_SLO_COLUMNS)
    rows = zip(*(getattr(workload, column).tolist() for column in columns), strict=True)
    lines = [",".join(columns), *(",".join(map(repr, row)) for row in rows)]
    if workload.block_hashes:
        lines[0] += f",{_HASH_COLUMN}"
        for i, hashes in enumerate(workload.block_hashes, start=1):
            lines[i] += f",{' '.join(map(str, hashes))}"
    raw = "\n".join([*lines, ""]).encode()
    with replacing(target) as temporary:
        # The gzip header has no time stamp, so that the same workload gives the same bytes.
        temporary.write_bytes(gzip.compress(raw, mtime=0) if target.suffix == ".gz" else raw)


def _read(path: Path, name: str, seed: int, slos: Slos) -> Workload:
    form = _FORMATS[name]
    found = _rows(path, name)
    kinds = (form.clock, form.tokens, form.tokens, *(_OPTIONAL[column] for column in found.columns[3:]))
    table, hashes = _numbers(path, found, kinds)
    notes = []

    failed = (table[:, 1:3] == 0).any(axis=1)
    if failed.any():
        hashes = [mine for mine, drop in zip(hashes, failed, strict=False) if not drop]
        table = table[~failed]
        notes.append(f"{failed.sum()} failed requests of zero tokens dropped")
    if not len(table):
        raise InputError(f"{path}: holds no requests; needs at least one row with tokens")
    if (np.diff(table[:, 0]) < 0).any():
        order = np.argsort(table[:, 0], kind="stable")
        table = table[order]
        hashes = [hashes[row] for row in order] if hashes else []
        notes.append("rows sorted by arrival")
    if name == "azure":
        table[:, 0] -= table[0, 0]
    arrival_s = table[:, 0] / form.ticks_per_s
    if name == "mooncake" and (tick_s := _coarse_tick_s(arrival_s)):
        arrival_s = _spread_in_ticks(arrival_s, tick_s, seed)
        notes.append(f"arrivals spread at random inside its clock's ticks of {tick_s:.3g} s (seed {seed})")

    blocks = np.ceil(table[:, 1] / HASH_BLOCK_TOKENS).astype(int).tolist()
    block_hashes = tuple([mine[:count] for mine, count in zip(hashes, blocks, strict=True)]) if any(hashes) else ()
    recorded = slos.apply(Workload.of(arrival_s, table[:, 1], table[:, 2], label="", block_hashes=block_hashes), seed)
    own = {column: table[:, i] for i, column in enumerate(found.columns) if column in _SLO_COLUMNS}
    recorded = recorded.with_slos(*[own.get(column, getattr(recorded, column)) for column in _SLO_COLUMNS])
    what = f"{name} trace {path.name}, recorded at {recorded.rate_rps:.3g} req/s"
    return replace(recorded, label=", ".join([what, *notes]))


def _rows(path: Path, name: str) -> Rows:
    text = text_of(path)
    columns = _FORMATS[name].columns
    if not text.strip():
        raise InputError(f"{path}: empty file; needs rows of {', '.join(columns)}")
    if name == "native":
        return csv_rows(path, text, columns, tuple(_OPTIONAL))
    if name != "mooncake":
        return csv_rows(path, text, columns)
    # Mooncake's conversation trace is also distributed as CSV.
    if text.startswith("timestamp_ms,"):
        return csv_rows(path, text, ("timestamp_ms", *columns[1:]))
    return json_rows(path, text, columns, (_HASH_COLUMN,))


def _numbers(path: Path, found: Rows, kinds: Sequence[_Kind]) -> tuple[FloatArray, list[tuple[int, ...]]]:
    # Returns the numbers, shape (rows, columns), and each row's hashes, which are in the last column if the file has
    # any.
    parsers = [kind.parse for kind in kinds]
    table = []
    for line, fields in found.rows:
        try:
            table.append([parse(field) for parse, field in zip(parsers, fields, strict=True)])
        except _NOT_ONE:
            raise _bad_field(path, line, found.columns, fields, kinds) from None
    hashes = [row.pop() for row in table] if found.columns[-1] == _HASH_COLUMN else []
    width = len(parsers) - (found.columns[-1] == _HASH_COLUMN)
    return np.array(table, dtype=np.float64).reshape(len(table), width), hashes


def _bad_field(
    path: Path, line: int, columns: Sequence[str], fields: Sequence[Any], kinds: Sequence[_Kind]
) -> InputError:
    for column, field, kind in zip(columns, fields, kinds, strict=True):
        try:
            kind.parse(field)
        except _NOT_ONE:
            return row_error(path, line, f"{column} is {shown(field)}; must be {kind.right}")
    raise AssertionError("called for a row without a bad field")


def _coarse_tick_s(arrival_s: FloatArray) -> float | None:
    """Return the median step between times if most requests have the same time as the one before; otherwise None."""
    steps_s = np.diff(arrival_s)
    shared = steps_s == 0
    return None if shared.all() or shared.mean() <= 0.5 else float(np.median(steps_s[~shared]))


def _spread_in_ticks(arrival_s: FloatArray, tick_s: float, seed: int) -> FloatArray:
    stamps_s, index = np.unique(arrival_s, return_inverse=True)
    width_s = np.minimum(np.diff(stamps_s, append=inf), tick_s)[index]
    # Each draw stays within its tick, so sorting only reorders draws within a tick, and requests keep their order.
    return np.sort(arrival_s + width_s * stream(seed, _TICK_STREAM).random(len(arrival_s)))
