"""A first look at a table: which of its columns hold numbers, words or sentences."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edge_train.formats.inside import wrong_place
from edge_train.formats.json_text import read_text
from edge_train.formats.tables import parquet
from edge_train.formats.tables.coding import guess_of, kind_of
from edge_train.formats.tables.dialect import dialect_of, reader
from edge_train.formats.tables.header import header_of
from edge_train.formats.tables.names import KNOWN
from edge_train.formats.tables.numbers import is_number
from edge_train.formats.tables.splits import part_of
from edge_train.formats.tables.table import PARQUET, RECORDS

_ROWS, _LOOK_BYTES = 50, 200_000
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
    """Return what each column holds: number, word, sentence or other; None: it is no table."""
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
    """Return the first rows of records or of a parquet file; None: it is neither."""
    kind = kind_of(path)
    if not path.is_file() or kind not in (*RECORDS, PARQUET):
        return None
    if kind == PARQUET:
        names = parquet.columns_of(path)
        rows = islice(parquet.rows_of(path), _ROWS)
        return [dict(zip(names, row, strict=True)) for _, row in rows]
    lines = _first_lines(path)
    if kind == ".json" and lines and lines[0].lstrip().startswith("["):
        return list(islice(_listed("".join(lines)), _ROWS))
    found = []
    for line in lines:
        try:
            row = read_text(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _listed(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, as far as its beginning holds them whole."""
    at = text.index("[") + 1
    decoder = json.JSONDecoder()
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            yield value


def _first_lines(path: Path) -> list[str]:
    """Return the first lines of a text, however long it and its lines are."""
    with path.open("rb") as file:
        content = file.read(_LOOK_BYTES)
    if path.suffix.lower() == ".gz":
        try:
            content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, _LOOK_BYTES)
        except (zlib.error, gzip.BadGzipFile):
            return []
    text = content.decode(guess_of(content), "replace")
    lines = io.StringIO(text, newline="").readlines()  # as they are read in earnest
    if len(lines) > 1 and len(content) == _LOOK_BYTES:
        lines.pop()  # cut
    return lines if kind_of(path) == ".json" else lines[:_ROWS]


def _kind(cells: Sequence[Any]) -> str:
    told = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, list | dict) for cell in told):
        return "other"
    if told and all(map(is_number, told)):
        return "number"
    return "sentence" if any(" " in str(cell).strip() for cell in told) else "word"
