"""Rows of jsonl, read a line at a time, and of json, read at once."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.json_text import Twice, may_have_halves, read_halves, unambiguous, whole
from edge_train.formats.tables.coding import Coding, opened_text
from edge_train.formats.tables.delimited import MOST_CHARACTERS, whole_lines
from edge_train.units import shown

_MOST_OTHERS = 10_000  # names that a record lacks and others have; each is a cell of its row


@dataclass(frozen=True)
class NoRecord:
    """What stands in the place of a record that cannot be read.

    Attributes:
      why: goes on after its number.
    """

    why: str


Record = Mapping[str, Any] | NoRecord


@dataclass(frozen=True)
class Numbered:
    """A record, and where it stands.

    Attributes:
      number: of its line or place, from 1 on.
      mended: U+FFFD stands for halves of letters in it.
    """

    number: int
    record: Record
    mended: bool = False


@dataclass(frozen=True)
class Names:
    """What all records of a file have: every name, as they first come, and how many were mended."""

    names: tuple[str, ...]
    mended: int

    def said(self, path: Path) -> tuple[str, ...]:
        """Return what a user should know of it, a line each."""
        if not self.mended:
            return ()
        rows = "1 row" if self.mended == 1 else f"{self.mended} rows"
        return (
            f"{path.name} has halves of letters (\\ud800 to \\udfff, as of an emoji cut in two) in "
            f"{rows}: each is read as U+FFFD",
        )


def is_lines(path: Path, coding: Coding) -> bool:
    """Return whether a `.json` has an object a line, as many of them do.

    Raises:
      InputError: it cannot be read.
    """
    with opened_text(path, coding) as file:
        first = file.readline(MOST_CHARACTERS).strip()
        try:
            return isinstance(read_halves(first), dict) and bool(file.read(1024).strip())
        except ValueError:
            return False


def lines_of(path: Path, coding: Coding) -> Iterator[Numbered]:
    """Yield every line that is not blank.

    Raises:
      InputError: it cannot be read, or a line is too long for memory.
    """
    with opened_text(path, coding) as file:
        for number, line in enumerate(whole_lines(path, file), 1):
            if line.strip():
                record = record_in(line)
                mended = whole(record) if may_have_halves(line) else record
                yield Numbered(number, mended, mended is not record)


def record_in(line: str) -> Record:
    """Return the object of a line; halves of letters are left in it.

    It is none if a name has two values: which of them is meant, nobody knows.
    """
    try:
        return _record(read_halves(line, unambiguous))
    except json.JSONDecodeError as error:
        return NoRecord(f"is not JSON ({error.msg} at character {error.colno})")
    except ValueError as error:
        return NoRecord(f"cannot be read ({error})")


def records_of(path: Path, coding: Coding) -> list[Numbered]:
    """Return the records of a json: a list of objects, or an object of columns.

    A column is a list, or an object as pandas writes it; an object that holds one list of records
    beside other things stands for that list, and one that holds the turns of a chat is that chat.

    Raises:
      InputError: it cannot be read, or is neither.

    Memory: the whole file.
    """
    with opened_text(path, coding) as file:
        text = file.read()
    try:
        value = read_halves(text, unambiguous)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    if isinstance(value, dict):
        value = listed(value)
    if not isinstance(value, list):
        raise InputError(
            f"{path}: expected a list of records, [{{...}}, ...], or one list a column, "
            '{"text": [...], "label": [...]}, each name once.'
        )
    mend = may_have_halves(text)
    found = []
    for number, one in enumerate(value, 1):
        record = _record(one)
        mended = whole(record) if mend else record
        found.append(Numbered(number, mended, mended is not record))
    return found


def listed(value: dict[str, Any]) -> list[Any] | None:
    """Return the records that an object stands for, None where it stands for none."""
    if any(isinstance(v, list) and v and is_turn(v[0]) for v in value.values()):
        return [value]
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


def is_turn(value: Any) -> bool:
    """Return whether a value is a turn of a chat, which is no record by itself.

    >>> is_turn({"role": "user", "content": "hi"}), is_turn({"from": "a@b.c", "text": "hi"})
    (True, False)
    """
    if not isinstance(value, dict):
        return False
    return {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()


def names_in_lines(path: Path, coding: Coding) -> Names:
    """Return the names in all lines of a file; it is read once for as long as it stays the same.

    Raises:
      InputError: as `lines_of` and `names_in`.
    """
    try:
        now = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    return _names_in_lines(path, coding, (now.st_ino, now.st_size, now.st_mtime_ns))


@lru_cache(maxsize=32)  # a run opens its data a dozen times
def _names_in_lines(path: Path, coding: Coding, _stamp: tuple[int, int, int]) -> Names:
    return names_in(path, lines_of(path, coding))


def names_in(path: Path, records: Iterable[Numbered]) -> Names:
    """Return the names in all records, in the order in which they come.

    Raises:
      InputError: records have so many names that others lack that they are no rows of one table.
    """
    names: dict[str, None] = {}
    mended = 0
    for one in records:
        mended += one.mended
        if isinstance(one.record, NoRecord):
            continue
        names.update(dict.fromkeys(one.record))
        if len(names) - len(one.record) > _MOST_OTHERS:
            raise InputError(
                f"{path}: its records have more than {_MOST_OTHERS:,} names that others lack; "
                "expected the same names in every record: put what differs under one name."
            )
    return Names(tuple(names), mended)


def _record(value: Any) -> Record:
    if isinstance(value, dict):
        return value
    if isinstance(value, Twice):
        return NoRecord(f"has two values for {shown(value.name)}, expected one value a name")
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return NoRecord("is a list of JSON objects, expected one object; let its name end in .json")
    return NoRecord(f"is {_KINDS.get(type(value), 'a value')}, expected a JSON object")


_KINDS: Mapping[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
