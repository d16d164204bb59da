"""Rows of a CSV or JSONL file, one after the other, each with the line it began on; whatever Excel makes of such a file is understood.

UTF-8 with or without a byte-order mark, or UTF-16 with one; commas, semicolons or tabs; `sep=;` in a first line. The file is never in
memory as a whole.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

DELIMITERS = ",;\t"
MAX_LINE = 1_000_000
"""Characters; a longer line is no row of such a table."""


class RowFault(Exception):
    """A place where the file cannot be read on."""

    def __init__(self, line: int, words: str) -> None:
        self.line, self.words = line, words
        super().__init__(words)


@dataclass(frozen=True)
class Row:
    """One row: the line it begins on, and its values by column in small letters. CSV has text only; JSONL has numbers and null, too."""

    line: int
    values: dict[str, object]


@dataclass(frozen=True)
class Rows:
    """The columns of a table (empty for JSONL, whose rows name their own) and its rows, to be read once."""

    columns: tuple[str, ...]
    rows: Iterator[Row]
    decimal_comma: bool
    """True where a comma cannot be what parts two values."""


def read_rows(file: BinaryIO, name: str, known: Sequence[str]) -> Rows:
    """The table in `file`; `name` tells JSONL by its ending, `known` are the columns by which a delimiter is recognised.

    Raises RowFault where it cannot be read, in here or while the rows are taken.
    """
    lines = _lines(file)
    first = next(lines, None)
    while first is not None and not first[1].strip():
        first = next(lines, None)
    if first is None:
        raise RowFault(1, "the file is empty")
    if Path(name).suffix.lower() in (".jsonl", ".ndjson") or first[1].lstrip().startswith("{"):
        return Rows((), _objects(_chain(first, lines)), False)
    if first[1].lstrip().startswith(("[", "<")):
        raise RowFault(first[0], "this is neither CSV nor JSONL (one JSON object a line)")
    told = re.fullmatch(r'"?sep=(.)"?\s*', first[1])
    if told:
        first = next(lines, None)
        if first is None:
            raise RowFault(1, "there is no header")
    delimiter = told[1] if told else _delimiter(first[1], known)
    table = _Table(_chain(first, lines), delimiter)
    header = next(table)
    columns = tuple(cell.strip().lower() for cell in header.cells)
    return Rows(columns, _named(table, columns), delimiter != ",")


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """(number, text with its line end), decoded one by one, so that a fault has a line."""
    start = file.read(4)
    encoding = "utf-16-le" if start[:2] == b"\xff\xfe" else "utf-16-be" if start[:2] == b"\xfe\xff" else "utf-8"
    rest = start[2:] if encoding != "utf-8" else start.removeprefix(b"\xef\xbb\xbf")
    newline = "\n".encode(encoding)
    number = 0
    while True:
        block = file.read(1 << 16)
        rest += block
        parts = _split(rest, newline)
        rest = parts.pop()
        if not block and rest:
            parts, rest = [*parts, rest], b""
        for part in parts:
            number += 1
            try:
                yield number, part.decode(encoding)
            except UnicodeDecodeError as error:
                raise RowFault(number, f"not UTF-8 text ({error.reason}); save the file as CSV UTF-8") from error
        if len(rest) > MAX_LINE * 4:
            raise RowFault(number + 1, f"a line of more than {MAX_LINE:,} characters")
        if not block:
            return


def _split(data: bytes, newline: bytes) -> list[bytes]:
    """Lines with their ends; the last one is what has no end yet. UTF-16 is split between its characters only."""
    width = len(newline)
    if width == 1:
        parts = data.split(newline)
        return [part + newline for part in parts[:-1]] + [parts[-1]]
    found, begin, at = [], 0, 0
    while (at := data.find(newline, at)) >= 0:
        if at % width == 0:
            found.append(data[begin : at + width])
            begin = at = at + width
        else:
            at += 1
    return [*found, data[begin:]]


def _chain(first: tuple[int, str], rest: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _delimiter(header: str, known: Sequence[str]) -> str:
    """The delimiter that makes most of the header's cells known columns."""

    def hits(delimiter: str) -> int:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return -1
        return sum(cell.strip().lower() in known for cell in cells)

    return max(DELIMITERS, key=hits)


@dataclass(frozen=True)
class _Cells:
    line: int
    cells: list[str]


class _Table:
    """A CSV reader that knows on which line of the file each row begins."""

    def __init__(self, lines: Iterator[tuple[int, str]], delimiter: str) -> None:
        self._lines = lines
        self._last = 0
        self._began = 0
        self._reader = csv.reader(self._feed(), delimiter=delimiter, strict=True)

    def _feed(self) -> Iterator[str]:
        for number, text in self._lines:
            self._last = number
            self._began = self._began or number
            yield text

    def __iter__(self) -> _Table:
        return self

    def __next__(self) -> _Cells:
        self._began = 0
        try:
            cells = next(self._reader)
        except csv.Error as error:
            begun = f" (the row begins on line {self._began})" if self._began != self._last else ""
            raise RowFault(
                self._last, f"not CSV: {error}{begun}; a quote inside a quoted cell is written twice"
            ) from error
        return _Cells(self._began, cells)


def _named(table: _Table, columns: Sequence[str]) -> Iterator[Row]:
    for row in table:
        if not any(cell.strip() for cell in row.cells):
            continue
        extra = row.cells[len(columns) :]
        if any(cell.strip() for cell in extra) or len(row.cells) < len(columns):
            raise RowFault(
                row.line,
                f"has {len(row.cells)} cells, the header has {len(columns)}; is a quote or a delimiter missing?",
            )
        values: dict[str, object] = {}
        for column, cell in zip(columns, row.cells, strict=False):
            if column:
                values[column] = cell
            elif cell.strip():
                raise RowFault(row.line, "there is a value in a column that has no name")
        yield Row(row.line, values)


def _objects(lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, text in lines:
        if not text.strip():
            continue
        try:
            value = json.loads(text, object_pairs_hook=_pairs)
        except json.JSONDecodeError as error:
            raise RowFault(number, f"not JSON (column {error.colno}: {error.msg}); one object a line") from error
        except (ValueError, RecursionError) as error:
            raise RowFault(number, f"not a row: {error}") from error
        if not isinstance(value, dict):
            raise RowFault(number, "must be an object")
        yield Row(number, value)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        name = key.strip().lower()
        if name in found:
            raise ValueError(f"{key} stands there twice")
        found[name] = value
    return found
