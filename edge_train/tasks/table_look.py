"""A first look at a table of text: which of its columns hold numbers, words or sentences."""

import csv
import json
from pathlib import Path
from typing import Any

_ROWS, _LOOK_CHARACTERS = 50, 200_000
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def columns_of(path: Path) -> list[str] | None:
    """Return what each column of a csv or tsv holds: number, word or sentence; None: no table."""
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None or not path.is_file():
        return None
    try:
        rows = list(csv.reader(_first_lines(path), delimiter=delimiter))
    except csv.Error:  # a field that is a book: whoever reads it in earnest says so
        return None
    body = rows[1:] or rows  # the first may be a header
    width = max((len(row) for row in body), default=0)
    columns = [[row[i] for row in body if len(row) > i] for i in range(width)]
    return [_kind(column) for column in columns]


def first_rows(path: Path) -> list[dict[str, Any]] | None:
    """Return the first rows of a jsonl file; None: it is none."""
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return None
    found = []
    for line in _first_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _first_lines(path: Path) -> list[str]:
    """Return the first lines of a text, however long it and its lines are."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(_LOOK_CHARACTERS)
    return text.splitlines(keepends=True)[:_ROWS]


def _kind(cells: list[str]) -> str:
    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    if all(map(is_number, cells)):
        return "number"
    return "sentence" if any(" " in cell.strip() for cell in cells) else "word"
