"""Tables beside pictures, as the hub's imagefolder has them: a file name, and a text or label."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.json_text import read_text
from edge_train.formats.picture_folders import shown

FILE = "file_name"
TEXTS = ("text", "caption", "prompt")
LABELS = ("label", "class", "category")
_MOST_BYTES = 256 * 2**20  # of a table; 60,000 captions have 10 MB


def read_column(table: Path, names: Sequence[str]) -> dict[str, str] | None:
    """Return file name -> text of the first of some columns that a table has; None: it has none.

    Names of columns are compared in lower case. Labels may be words, whole numbers or true and
    false. A row without a text is left out.

    Raises:
      InputError: the table cannot be read, has no column `file_name`, names a file outside of its
        folder, or one file twice with different texts.
    """
    found: dict[str, str] = {}
    column = None
    for number, row in _rows(table):
        if FILE not in row:
            raise InputError(
                f"{shown(table)}: line {number} has no {FILE}; it names the picture that the line "
                f"is about."
            )
        column = column or next((name for name in names if name in row), None)
        if column is None:
            continue
        file = _inside(table, number, row[FILE])
        text = _text(table, number, column, row.get(column))
        if not text:
            continue
        if found.setdefault(file, text) != text:
            raise InputError(
                f"{shown(table)}: {file} stands there twice, with {column} {found[file]!r} and "
                f"{text!r}; remove one of the lines."
            )
    return found if column else None


def _inside(table: Path, number: int, name: Any) -> str:
    """Return the name of a file below the table's folder."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{shown(table)}: line {number} has no {FILE}.")
    parts = name.strip().replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(
            f"{shown(table)}: line {number} names {name!r}, which is not in the folder of the "
            "table; nothing outside of it is opened."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _text(table: Path, number: int, column: str, value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if value is None or isinstance(value, str):
        return " ".join((value or "").split())
    raise InputError(
        f"{shown(table)}: line {number}: {column} is {json.dumps(value)[:40]}; expected a text or "
        "a whole number."
    )


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number of each line and what it holds, by name of column in lower case."""
    try:
        if table.stat().st_size > _MOST_BYTES:
            raise InputError(f"{shown(table)}: larger than {_MOST_BYTES // 2**20} MiB.")
        with open(table, encoding="utf-8-sig", newline="") as file:
            read = _csv_rows if table.suffix.lower() == ".csv" else _json_rows
            for number, row in read(table, file):
                yield number, {str(name).strip().lower(): value for name, value in row.items()}
    except OSError as error:
        raise InputError(f"{shown(table)}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(table)}: it is not UTF-8 text; save it as UTF-8.") from error


def _csv_rows(table: Path, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = csv.reader(file)
    try:
        head = next(rows, [])
        for row in rows:
            if len(row) == len(head):
                yield rows.line_num, dict(zip(head, row, strict=True))
            elif row:
                raise InputError(
                    f"{shown(table)}: line {rows.line_num} has {len(row)} columns, the first line "
                    f"{len(head)}."
                )
    except csv.Error as error:
        raise InputError(f"{shown(table)}: line {rows.line_num} is no row ({error}).") from error


def _json_rows(table: Path, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = read_text(line)
        except ValueError as error:
            raise InputError(f"{shown(table)}: line {number} is not JSON.") from error
        if not isinstance(row, dict):
            raise InputError(f"{shown(table)}: line {number} is no object such as {{...}}.")
        yield number, row
