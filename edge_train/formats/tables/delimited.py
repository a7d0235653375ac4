"""Rows of csv, tsv and the like, read a line at a time."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from edge_train.errors import InputError
from edge_train.formats.tables.coding import Coding, opened_text
from edge_train.formats.tables.dialect import Dialect, Lines, reader

MOST_CHARACTERS = 1 << 26  # of a line or cell; a book has a million
_LOOK_CHARACTERS, _LOOK_LINES = 1 << 18, 1000


def first_lines(path: Path, coding: Coding) -> list[str]:
    """Return the first lines of a text with their ends; none is cut, unless it is the only one.

    Raises:
      InputError: it cannot be read.
    """
    lines: list[str] = []
    room = _LOOK_CHARACTERS
    with opened_text(path, coding) as file:
        while room > 0 and len(lines) < _LOOK_LINES and (line := file.readline(_LOOK_CHARACTERS)):
            lines.append(line)
            room -= len(line)
    if len(lines) > 1 and len(lines[-1]) == _LOOK_CHARACTERS:
        lines.pop()
    return lines


def rows_of(path: Path, coding: Coding, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the cells of every row that is not blank.

    Raises:
      InputError: it cannot be read, a quote never ends, or a line has more than 67 million
        characters.
    """
    with opened_text(path, coding) as file, _long_cells():
        source = Lines(islice(whole_lines(path, file), dialect.skipped, None))
        table = reader(source, dialect.delimiter, dialect.quoted)
        before = dialect.skipped
        while True:
            start = before + 1
            try:
                row = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"{path}: line {start} is not a row ({error}).") from error
            before = dialect.skipped + table.line_num
            if source.ended and before > start:
                raise InputError(
                    f"{path}: the row of line {start} opens a quote that never ends; close it, or "
                    "double quotes that are letters of a text."
                )
            if any(cell.strip() for cell in row):
                yield start, row


def whole_lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield lines with their ends, none of them too long for memory.

    Raises:
      InputError: a line has more than 67 million characters.
    """
    number = 0
    while line := file.readline(MOST_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_CHARACTERS:
            raise InputError(
                f"{path}: line {number} has more than {MOST_CHARACTERS:,} characters; is it a "
                "table of texts?"
            )
        yield line


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be as long as lines: Python's limit of 131,072 characters is one of the process."""
    before = csv.field_size_limit(MOST_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)
