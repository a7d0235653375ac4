"""A first look at a table: which of its columns hold numbers, words or sentences."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, TextIO

from edge_train.errors import InputError
from edge_train.formats.inside import wrong_place
from edge_train.formats.tables import parquet
from edge_train.formats.tables.coding import guess_of, kind_of, opened
from edge_train.formats.tables.delimited import MOST_CHARACTERS
from edge_train.formats.tables.dialect import dialect_of, reader
from edge_train.formats.tables.header import header_of
from edge_train.formats.tables.names import KNOWN
from edge_train.formats.tables.numbers import is_number
from edge_train.formats.tables.records import is_turn, listed, record_in
from edge_train.formats.tables.splits import part_of
from edge_train.formats.tables.table import PARQUET, RECORDS

_ROWS, _LOOK_CHARACTERS = 50, 200_000
_LONGEST_CHARACTERS = 1 << 22  # of a row; a book has a million
_GUESS_BYTES = 4096
_DECODER = json.JSONDecoder()
_DELIMITED = (".csv", ".tsv", ".tab")
_TABLES = (*_DELIMITED, *RECORDS, PARQUET)


def training_file(path: Path, kinds: Sequence[str] = _TABLES) -> Path | None:
    """Return a file itself, or the training part of a folder; None where it is no such file."""
    if path.is_file():
        return path if kind_of(path) in kinds else None
    for place in (path, path / "data"):
        if place.is_dir():
            found = [
                file
                for file in place.iterdir()
                if kind_of(file) in kinds and part_of(file) == "train"
                if not wrong_place(file, place)
            ]
            if found:
                return min(found)
    return None


def columns_of(path: Path) -> list[str] | None:
    """Return what each column holds: number, word, sentence or other; None: it is no table.

    Raises:
      InputError: it cannot be read, or is empty.
    """
    if not path.is_file():
        return None
    if kind_of(path) not in _DELIMITED:
        rows = first_rows(path)
        names = dict.fromkeys(name for row in rows or () for name in row)
        return [_kind([row.get(name) for row in rows or ()]) for name in names] or None
    lines = _first_lines(path)
    dialect = dialect_of(lines, kind_of(path))
    try:
        table = list(reader(lines[dialect.skipped :], dialect.delimiter, dialect.quoted))
    except csv.Error:  # a field that is a book: whoever reads it in earnest takes it
        return ["sentence"] * 2
    table = [row for row in table if any(cell.strip() for cell in row)]
    if not table:
        return None
    named, _ = header_of(table[0], table[1:], KNOWN)
    body = table[1:] if named and len(table) > 1 else table
    width = max(len(row) for row in body)
    return [_kind([row[i] for row in body if len(row) > i]) for i in range(width)]


def first_rows(path: Path) -> list[dict[str, Any]] | None:
    """Return the first rows of records or of a parquet file; None: it is neither.

    Raises:
      InputError: it cannot be read, or is empty.
    """
    kind = kind_of(path)
    if not path.is_file() or kind not in (*RECORDS, PARQUET):
        return None
    if kind == PARQUET:
        names = parquet.columns_of(path)
        rows = islice(parquet.rows_of(path), _ROWS)
        return [dict(zip(names, row, strict=True)) for _, row in rows]
    return _rows_of_json(path) if kind == ".json" else _rows_of_lines(path)


def _rows_of_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of the first lines, however long they are and whatever is between them.

    Raises:
      InputError: it cannot be read, or is empty.
    """
    found: list[dict[str, Any]] = []
    tried, room = 0, _LOOK_CHARACTERS
    for line in filter(str.strip, _lines(path)):
        found += _objects((record_in(line),))
        tried, room = tried + 1, room - len(line)
        if tried == _ROWS or (found and room < 0):
            break
    if not tried:
        raise _empty(path)
    return found


def _rows_of_json(path: Path) -> list[dict[str, Any]]:
    """Return the first records of a json, of which no more is read than it takes to have one.

    Raises:
      InputError: it cannot be read, or is empty.
    """
    text = ""
    with _opened(path) as file:
        while len(text) < MOST_CHARACTERS and (
            piece := file.read(max(len(text), _LOOK_CHARACTERS))
        ):
            text += piece
            if rows := _first_records(text):
                return rows
            if text.strip() and text.lstrip()[0] not in "[{":
                return []
    if not text.strip():
        raise _empty(path)
    return []


def _first_records(text: str) -> list[dict[str, Any]]:
    """Return the first records of a json, as far as its beginning has them whole."""
    start = len(text) - len(text.lstrip())
    if text.startswith("[", start):
        return list(islice(_listed(text, start + 1), _ROWS))
    if not text.startswith("{", start):
        return []
    value, end = _decoded(text, start)
    if not isinstance(value, dict):
        return _wrapped(text, start + 1)
    if text[end:].strip():  # an object a line
        lines = filter(str.strip, io.StringIO(text, newline=""))
        return _objects(map(record_in, islice(lines, _ROWS)))
    return _objects(listed(value) or [value])[:_ROWS]


def _wrapped(text: str, at: int) -> list[dict[str, Any]]:
    """Return the first records of the first list of objects in an object.

    Args:
      at: the place behind the brace that opens the object.
    """
    while True:
        name, at = _decoded(text, _behind(text, at, ","))
        at = _behind(text, at, ":")
        if not isinstance(name, str) or at == len(text):
            return []
        if text[at] == "[" and (rows := list(islice(_listed(text, at + 1), _ROWS))):
            return [{name: rows}] if is_turn(rows[0]) else rows
        value, at = _decoded(text, at)
        if value is None and at == len(text):
            return []


def _listed(text: str, at: int) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, as far as a text holds them whole, up to what is no JSON.

    Args:
      at: the place behind the bracket that opens the list.
    """
    while True:
        value, at = _decoded(text, _behind(text, at, ","))
        if isinstance(value, dict):
            yield value
        elif at == len(text):
            return


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """Return the value at a place, and the place behind it: the end where there is no whole one."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, len(text)


def _behind(text: str, at: int, sign: str) -> int:
    """Return the first place from another one on that has neither white space nor a sign."""
    while at < len(text) and text[at] in f" \t\r\n{sign}":
        at += 1
    return at


def _objects(values: Iterable[Any]) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)]


def _first_lines(path: Path) -> list[str]:
    """Return the first lines of a text, at least a header and a row, however long they are.

    Raises:
      InputError: it cannot be read, or is empty.
    """
    found: list[str] = []
    room = _LOOK_CHARACTERS
    for line in islice(dropwhile(str.isspace, _lines(path)), _ROWS):
        found.append(line)
        room -= len(line)
        if room < 0 and len(found) > 1:
            break
    if not found:
        raise _empty(path)
    return found


def _lines(path: Path) -> Iterator[str]:
    """Yield lines with their ends; one that is longer than any row of texts comes in pieces.

    Raises:
      InputError: it cannot be read.
    """
    with _opened(path) as file:
        while line := file.readline(_LONGEST_CHARACTERS):
            yield line


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a text whose coding is guessed by its beginning; what is no letter of it is replaced.

    Raises:
      InputError: it cannot be read.
    """
    with opened(path) as file:
        coding = guess_of(file.read(_GUESS_BYTES))
        file.seek(0)
        with io.TextIOWrapper(file, coding, "replace", newline="") as text:  # as read in earnest
            yield text


def _empty(path: Path) -> InputError:
    return InputError(f"{path}: the file is empty; name another one.")


def _kind(cells: Sequence[Any]) -> str:
    told = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, list | dict) for cell in told):
        return "other"
    if told and all(map(is_number, told)):
        return "number"
    return "sentence" if any(" " in str(cell).strip() for cell in told) else "word"
