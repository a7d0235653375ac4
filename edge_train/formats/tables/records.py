"""Rows of jsonl, read a line at a time, and of json, read at once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.json_text import read_text, unambiguous
from edge_train.formats.tables.coding import Coding, opened_text
from edge_train.formats.tables.delimited import MOST_CHARACTERS, whole_lines


def is_lines(path: Path, coding: Coding) -> bool:
    """Return whether a `.json` has an object a line, as many of them do.

    Raises:
      InputError: it cannot be read.
    """
    with opened_text(path, coding) as file:
        first = file.readline(MOST_CHARACTERS).strip()
        try:
            return isinstance(read_text(first), dict) and bool(file.read(1024).strip())
        except ValueError:
            return False


def lines_of(path: Path, coding: Coding) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Yield the number of every line that is not blank and its object, None where it holds none.

    Nor is it one if a name has two values: which of them is meant, nobody knows.

    Raises:
      InputError: it cannot be read, or a line is too long for memory.
    """
    with opened_text(path, coding) as file:
        for number, line in enumerate(whole_lines(path, file), 1):
            if not line.strip():
                continue
            try:
                value = read_text(line, unambiguous)
            except ValueError:
                value = None
            yield number, value if isinstance(value, dict) else None


def records_of(path: Path, coding: Coding) -> list[Mapping[str, Any] | None]:
    """Return the records of a json: a list of objects, or an object of columns.

    A column is a list, or an object as pandas writes it; an object that holds one list of records
    beside other things stands for that list. A record in which a name has two values is None.

    Raises:
      InputError: it cannot be read, or is neither.

    Memory: the whole file.
    """
    with opened_text(path, coding) as file:
        try:
            value = read_text(file.read(), unambiguous)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}).") from error
    if isinstance(value, dict):
        value = _listed(value)
    if not isinstance(value, list):
        raise InputError(
            f"{path}: expected a list of records, [{{...}}, ...], or one list a column, "
            '{"text": [...], "label": [...]}, each name once.'
        )
    return [record if isinstance(record, dict) else None for record in value]


def _listed(value: dict[str, Any]) -> list[Any] | None:
    columns = {k: list(v.values()) if isinstance(v, dict) else v for k, v in value.items()}
    if columns and all(isinstance(column, list) for column in columns.values()):
        lengths = {len(column) for column in columns.values()}
        if len(lengths) == 1 and not any(
            isinstance(cell, dict) for column in columns.values() for cell in column
        ):
            return [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
    lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return lists[0] if len(lists) == 1 else None
