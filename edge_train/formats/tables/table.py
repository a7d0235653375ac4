"""A table of any kind: its columns by name, and its rows one at a time."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from edge_train.errors import InputError
from edge_train.formats.tables import delimited, parquet, records
from edge_train.formats.tables.coding import Coding, coding_of, kind_of
from edge_train.formats.tables.dialect import dialect_of
from edge_train.formats.tables.header import folded, header_of
from edge_train.formats.tables.records import NoRecord
from edge_train.formats.tables.wrong import Wrong
from edge_train.units import shown

DELIMITED = (".csv", ".tsv", ".tab", ".txt")
RECORDS = (".jsonl", ".ndjson", ".json")
PARQUET = ".parquet"
KINDS = (*DELIMITED, *RECORDS, PARQUET)
_SAMPLE = 1000  # rows that tell what the columns are
_SAMPLE_CHARACTERS, _FEWEST = 1 << 21, 8  # of long texts fewer do

T = TypeVar("T", bound=Sequence[Any])
Numbered = Iterator[tuple[int, Sequence[Any]]]


@dataclass
class Table:
    """Columns and rows of a file.

    Attributes:
      columns: their names; "column 1" and so on where the file names none.
      named: whether the file names them.
      said: what a user should know of how it was read, a line each.
      sample: the first rows, without wrong ones.
      class_names: of columns of whole numbers, what the file calls 0, 1, ... in them.
      wrong: rows that were left out when `rows` was read last; its reader may add some.
    """

    path: Path
    columns: tuple[str, ...]
    named: bool
    said: tuple[str, ...]
    wrong: Wrong
    _read: Callable[[], Iterator[tuple[int, Sequence[Any] | NoRecord]]]
    sample: list[Sequence[Any]] = field(default_factory=list)
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sample = _some(self.rows())

    def rows(self) -> Numbered:
        """Yield the number of each row in the file, and its cells, as many as there are columns.

        Cells of csv and the like are texts; those of json and parquet are what they say.

        Raises:
          InputError: the file cannot be read to its end.
        """
        self.wrong.clear()
        for number, row in self._read():
            self.wrong.rows += 1
            if isinstance(row, NoRecord):
                self.wrong.add(number, row.why)
            elif len(row) > len(self.columns) and not any(map(str.strip, row[len(self.columns) :])):
                yield number, row[: len(self.columns)]
            elif len(row) != len(self.columns):
                wanted = f"expected {len(self.columns)}"
                self.wrong.add(number, f"has {len(row)} columns, {wanted}")
            else:
                yield number, row

    def place(self, name: str, flag: str) -> int:
        """Return the place of a column that a user named, from 0 on, or counted, from 1 on.

        Args:
          flag: that named it, for the message.

        Raises:
          InputError: there is no such column.
        """
        if name in self.columns:
            return self.columns.index(name)
        if len(same := self.among((folded(name),))) == 1:
            return same[0]
        if name.isdecimal() and 1 <= int(name) <= len(self.columns):
            return int(name) - 1
        raise InputError(f"{self.path}: no column {shown(name)} ({flag}); it has {self.names()}.")

    def among(self, names: Sequence[str]) -> list[int]:
        """Return the places of columns that have one of some names, in the order of the names."""
        if not self.named:
            return []
        own = [folded(column) for column in self.columns]
        return [place for name in names for place, one in enumerate(own) if one == name]

    def names(self) -> str:
        """Return the names of the columns in words."""
        some = ", ".join(map(shown, self.columns[:8]))
        more = f" and {len(self.columns) - 8} more" if len(self.columns) > 8 else ""
        return f"{some}{more}" if self.named else f"{len(self.columns)} columns without names"


def _some(rows: Iterator[tuple[int, T]]) -> list[T]:
    """Return the first rows, few of them where they are long."""
    found: list[T] = []
    room = _SAMPLE_CHARACTERS
    for _, row in rows:
        found.append(row)
        room -= sum(len(cell) if isinstance(cell, str) else 1 for cell in row)
        if len(found) >= _SAMPLE or (room < 0 and len(found) >= _FEWEST):
            break
    return found


def open_table(path: Path, known: Collection[str], asked: Collection[str | None] = ()) -> Table:
    """Return the table in a file; its name says what kind it is, in small or capital letters.

    Args:
      known: names of columns, in small letters, that make a first row a header.
      asked: names that a user gave, which do so, too.

    Raises:
      InputError: it is of no kind that is known, missing, empty, or cannot be read.
    """
    kind = kind_of(path)
    names = {*known, *(folded(name) for name in asked if name and not name.isdecimal())}
    if kind not in KINDS:
        raise InputError(f"{path}: expected a table that ends in {', '.join(KINDS)}.")
    if kind == PARQUET:
        columns = parquet.columns_of(path)
        table = Table(path, columns, True, (), Wrong(path, "row"), partial(parquet.rows_of, path))
        table.class_names = parquet.class_names_of(path)
    elif kind in RECORDS:
        table = _records(path, kind, coding_of(path))
    else:
        table = _delimited(path, kind, coding_of(path), names)
    if not table.sample:
        table.wrong.check()
        raise InputError(f"{path}: no examples in it; expected a row a line.")
    own = Counter(map(folded, table.columns))
    for name in sorted(name for name in names if table.named and own[name] > 1):
        table.said += (
            f"{own[name]} columns of {path.name} are called {shown(name)}: the first is meant, and "
            "another can be named by its number, counted from 1",
        )
    return table


def _delimited(path: Path, kind: str, coding: Coding, known: Collection[str]) -> Table:
    dialect = dialect_of(delimited.first_lines(path, coding), kind)
    read = partial(delimited.rows_of, path, coding, dialect)
    some = _some(read())
    if not some:
        raise InputError(f"{path}: no examples in it; expected a row a line.")
    first, body = some[0], some[1:]
    named, by = header_of(first, [row for row in body if len(row) == len(first)], known)
    said = [coding.said] if coding.said else []
    if by:
        said.append(
            f"the first line of {path.name} is taken for names of columns "
            f"({', '.join(map(shown, first[:5]))}): no other row has {shown(by)}"
        )
    if named:
        while first and not first[-1].strip() and all(not any(r[len(first) - 1 :]) for r in body):
            first = first[:-1]  # lines that end with the delimiter
        columns = tuple(name.strip().strip("\ufeff") for name in first)
    else:
        widths = [len(row) for row in some]
        usual = max(set(widths), key=lambda width: (widths.count(width), width))
        columns = tuple(f"column {number}" for number in range(1, usual + 1))
    start = 1 if named else 0
    return Table(
        path, columns, named, tuple(said), Wrong(path), lambda: islice(read(), start, None)
    )


def _records(path: Path, kind: str, coding: Coding) -> Table:
    if kind == ".json" and not records.is_lines(path, coding):
        every = records.records_of(path, coding)
        found, wrong = records.names_in(path, every), Wrong(path, "record")
        read: Callable[[], Iterator[records.Numbered]] = partial(iter, every)
    else:
        found, wrong = records.names_in_lines(path, coding), Wrong(path)
        read = partial(records.lines_of, path, coding)

    def rows() -> Iterator[tuple[int, Sequence[Any] | NoRecord]]:
        for one in read():
            record = one.record
            if isinstance(record, NoRecord):
                yield one.number, record
            else:
                yield one.number, [record.get(name) for name in found.names]

    said = (*([coding.said] if coding.said else []), *found.said(path))
    return Table(path, found.names, True, said, wrong, rows)
