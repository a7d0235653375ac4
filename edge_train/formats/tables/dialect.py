"""What stands between the cells of a table, and whether quotes hold cells together."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_train.formats.tables.numbers import is_number

_DELIMITERS = ("\t", ";", "|", ",")
_USUAL = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_AGREE = 0.9  # of the rows that have as many cells as the first, or it is not what stands between


@dataclass(frozen=True)
class Dialect:
    """What stands between cells; whether quotes may surround one; lines before the table."""

    delimiter: str
    quoted: bool
    skipped: int = 0  # "sep=;", which Excel writes for itself

    @property
    def words(self) -> str:
        """The delimiter as people call it."""
        return {"\t": "a tab", ";": "a semicolon", "|": "a bar", ",": "a comma"}[self.delimiter]


class Lines:
    """The lines of a text for `csv.reader`; `ended`: it asked for one more than there are."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            self.ended = True
            raise


def dialect_of(lines: Sequence[str], kind: str) -> Dialect:
    """Return the dialect of a table by its first lines.

    A delimiter is one that gives nearly all rows as many cells as the first. Where several do, it
    is the one that leaves more columns of numbers, else the usual one of the file's name.

    Args:
      lines: with their ends, the last one whole.
      kind: the file's ending, as `.csv`.
    """
    if lines and (first := lines[0].strip().lower()).startswith("sep=") and len(first) == 5:
        delimiter = lines[0].strip()[4]
        if delimiter in _DELIMITERS:
            return Dialect(delimiter, _is_quoted(lines[1:], delimiter), 1)
    able = []
    for delimiter in _DELIMITERS:
        quoted = _is_quoted(lines, delimiter)
        rows = _rows(lines, delimiter, quoted)
        if rows and len(rows[0]) > 1:
            agree = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            if agree >= _AGREE:
                able.append((delimiter, quoted, rows))
    usual = _USUAL.get(kind)
    if able:
        best = max(able, key=lambda one: (*_numbers_in(one[2]), one[0] == usual))
        return Dialect(*best[:2])
    delimiter = usual or ","
    return Dialect(delimiter, _is_quoted(lines, delimiter))


def _rows(lines: Sequence[str], delimiter: str, quoted: bool) -> list[list[str]]:
    source = Lines(lines)
    rows = []
    try:
        for row in reader(source, delimiter, quoted):
            if source.ended:  # inside of quotes
                break
            if any(cell.strip() for cell in row):
                rows.append(row)
    except csv.Error:
        return rows
    return rows


def reader(lines: Iterable[str], delimiter: str, quoted: bool) -> Any:
    """Return Python's reader of such rows; its `line_num` counts the lines it took."""
    if quoted:
        return csv.reader(lines, delimiter=delimiter)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _is_quoted(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether quotes surround cells; in texts with tabs they are often just letters."""
    if delimiter in (",", ";"):
        return True
    cells = [cell.strip("\r\n") for line in lines for cell in line.split(delimiter)]
    marked = [cell for cell in cells if cell.startswith('"')]
    if not marked:
        return False
    if all(len(cell) > 1 and cell.endswith('"') for cell in marked):
        return True
    plain = Counter(map(len, _rows(lines, delimiter, False)))
    held = Counter(map(len, _rows(lines, delimiter, True)))
    return len(held) == 1 < len(plain)  # new lines or delimiters inside of quotes


def _numbers_in(rows: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Return how many columns are numbers with decimal commas, and how many are numbers."""
    body = rows[1:] or rows
    columns = list(zip(*(row for row in body if len(row) == len(rows[0])), strict=True))
    numbers = [column for column in columns if all(map(is_number, column))]
    return sum(any("," in cell for cell in column) for column in numbers), len(numbers)
