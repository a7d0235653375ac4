"""Samples from tables of numbers, one file or one a part, and windows of a series in time."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.tables.coding import kind_of
from edge_train.formats.tables.names import LABEL_FLAG, NO_WORDS
from edge_train.formats.tables.numbers import has_decimal_comma, number, whole
from edge_train.formats.tables.splits import beside, part_of, splits_of
from edge_train.formats.tables.table import DELIMITED, PARQUET, RECORDS, Table, open_table
from edge_train.units import shown

SPLIT_KINDS = tuple(kind for kind in (*DELIMITED, *RECORDS, PARQUET) if kind != ".txt")
# Fewer names than those of texts: a table of numbers may have a column "quality" to learn from.
_LABELS = ("label", "labels", "class", "target")
_TEST_SHARE = 0.2  # of every run of a series
_UNNAMED = ("", "unnamed: 0")  # what pandas calls the numbers of its rows
_COUNTING = ("id", "index", "idx")  # names of columns that may count rows
_LARGEST = float(np.finfo(np.float32).max)
_MOST_SILENT = 20  # classes that are numbers in a column that nobody named
_SECRET = "-1"  # noqa: S105 - the label of a test part that is not told

Part = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class TableSamples:
    """Inputs (samples, columns) float32 or (samples, rows, columns) of windows, and class numbers.

    Attributes:
      notices: what a user should know of how it was read and what was left out, a line each.
    """

    train: Part
    test: Part | None
    class_names: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """Numbers and words of a file; `columns` and `label` are those that others must have, too."""

    values: NDArray[np.float32]
    words: list[str]
    columns: tuple[str, ...]
    label: str


def is_table(path: Path) -> bool:
    """Return whether a file is one by its name."""
    return kind_of(path) in SPLIT_KINDS


def is_folder_of_tables(folder: Path) -> bool:
    """Return whether a folder, or `data` in it, has a table called train."""
    return any(
        is_table(path) and part_of(path) == "train"
        for place in (folder, folder / "data")
        if place.is_dir()
        for path in place.iterdir()
    )


def load_tables(
    path: Path, *, window: tuple[int, int] | None, label_column: str | None
) -> TableSamples:
    """Return the samples of a table, or of the train and test tables of a folder.

    A row is a sample: numbers, and a class in the column that was asked for, else one that is
    called label or the like, else the last.

    Args:
      window: rows and stride of the windows of a series; see `datasets.load`.

    Raises:
      InputError: it cannot be used.
    """
    said: list[str] = []
    test = None
    if path.is_dir():
        splits = splits_of(path, SPLIT_KINDS)
        said += splits.said
        train = _read(splits.files["train"], label_column, None, said)
        if unused := splits.files.get("dev"):
            said.append(
                f"{unused[0].name} is not used: task network holds out some of its training samples"
            )
        if files := splits.files.get("test"):
            test = _read(files, label_column, train, said)
    else:
        train = _read((path,), label_column, None, said)
        if unused := beside(path, SPLIT_KINDS):
            verb = "is" if len(unused) == 1 else "are"
            said.append(
                f"{' and '.join(file.name for file in unused)} beside {path.name} {verb} not used; "
                f"--data {path.parent} uses the folder"
            )
    names = tuple(sorted(set(train.words)))
    numbers = {name: at for at, name in enumerate(names)}
    if test is not None and (new := [word for word in test.words if word not in numbers]):
        if set(test.words) == {_SECRET}:
            said.append("the test part has no labels, so it is set aside")
            test = None
        else:
            raise InputError(
                f"data {path}: label {shown(new[0])} is in the test part, but not in the training "
                "part."
            )
    inputs, labels = _part(train, numbers)
    if window is None:
        tested = None if test is None else _part(test, numbers)
        return TableSamples((inputs, labels), tested, names, tuple(said))
    if test is not None:
        raise InputError(
            f"data {path}: windows of a series are cut from one table, whose runs end in a test "
            "part; name the file: --data FILE."
        )
    first, second = _windows(path, inputs, labels, *window)
    if window[1] < window[0]:
        said.append(
            "windows overlap: those that are held out to choose the best step share rows with "
            "those that are trained on, so their loss falls with what is learned by heart; those "
            "of the test share none"
        )
    return TableSamples(first, second, names, tuple(said))


def _part(read: _Read, numbers: dict[str, int]) -> Part:
    return read.values, np.array([numbers[word] for word in read.words])


def _read(
    paths: Sequence[Path], label_column: str | None, like: _Read | None, said: list[str]
) -> _Read:
    parts = []
    for path in paths:
        parts.append(_file(path, label_column, like, said))
        like = like or parts[0]
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values for part in parts])
    words = [word for part in parts for word in part.words]
    return _Read(values, words, parts[0].columns, parts[0].label)


def _file(path: Path, label_column: str | None, like: _Read | None, said: list[str]) -> _Read:
    table = open_table(path, _LABELS, (label_column,))
    said += table.said
    if len(table.columns) < 2:
        raise InputError(f"data {path}: it has {table.names()}; expected numbers and a class.")
    place, is_guess = _label(table, label_column)
    kept = [at for at in range(len(table.columns)) if at != place and not _is_index(table, at)]
    if table.named and len(kept) < len(table.columns) - 1:
        said.append(f"a column of {path.name} without a name counts its rows: it is left out")
    for at in kept:
        may_count = table.named and table.columns[at].casefold() in (*_COUNTING, *_UNNAMED)
        if may_count and _tells_rows_apart(table, at):
            does = "counts its rows" if _counts(table, at) else "has another number in each row"
            said.append(
                f"column {shown(table.columns[at])} of {path.name} {does}, and is learned from "
                "like any other; remove it if it says nothing of the class"
            )
    columns = tuple(table.columns[at] for at in kept)
    if like is not None and table.named and columns != like.columns:
        raise InputError(
            f"data {path}: its columns are {table.names()}, those of the training part "
            f"{', '.join(map(shown, like.columns[:8]))}."
        )
    values, words = _rows(table, kept, place, said)
    if is_guess:
        _check_guess(table, place, words, said)
    _check_classes(table, place, words)
    return _Read(values, words, columns, table.columns[place])


def _label(table: Table, asked: str | None) -> tuple[int, bool]:
    """Return the place of the classes, and whether it is only the last column."""
    if asked is not None:
        return table.place(asked, LABEL_FLAG), False
    if found := table.among(_LABELS):
        return found[0], False
    return len(table.columns) - 1, True


def _is_index(table: Table, place: int) -> bool:
    """Return whether a column has no name and counts the rows, as pandas writes it."""
    if not table.named or table.columns[place].casefold() not in _UNNAMED:
        return False
    return _counts(table, place)


def _counts(table: Table, place: int) -> bool:
    """Return whether each number in a column is one more than the one above."""
    cells = [number(row[place]) for row in table.sample]
    first = cells[0]
    return first is not None and cells == [first + at for at in range(len(cells))]


def _tells_rows_apart(table: Table, place: int) -> bool:
    """Return whether each row has a whole number of its own in a column, in whatever order."""
    cells = [number(row[place]) for row in table.sample]
    found = {cell for cell in cells if cell is not None and cell.is_integer()}
    return len(found) == len(cells)


def _rows(
    table: Table, kept: Sequence[int], place: int, said: list[str]
) -> tuple[NDArray[np.float32], list[str]]:
    """Return the numbers and the words of every row that has them."""
    values, words = array("f"), list[str]()
    comma = point = ""
    for at, row in table.rows():
        cells = [row[one] for one in kept]
        found = [value for cell in cells if (value := _held(cell)) is not None]
        if len(found) < len(cells):
            wrong = next(one for one, cell in enumerate(cells) if _held(cell) is None)
            table.wrong.add(at, _why(cells[wrong], table.columns[kept[wrong]]))
            continue
        label = row[place]
        if _is_none(label):
            table.wrong.add(at, "has no label")
            continue
        comma = comma or next((cell for cell in cells if has_decimal_comma(cell)), "")
        point = point or next((c for c in cells if isinstance(c, str) and "." in c), "")
        if comma and point:
            raise InputError(
                f"data {table.path}: {table.wrong.place} {at} is the first after which numbers "
                f"have both a comma ({comma.strip()}) and a point ({point.strip()}); write one of "
                "them for fractions, and nothing between thousands."
            )
        values.extend(found)
        words.append(_word(label))
    table.wrong.check()
    if line := table.wrong.sentence():
        said.append(line)
    if comma:
        said.append(
            f"numbers of {table.path.name} have a decimal comma: {comma.strip()} is read as "
            f"{comma.strip().replace(',', '.')}"
        )
    if not words:
        raise InputError(f"data {table.path}: it has a header and no rows.")
    return np.frombuffer(values, np.float32).reshape(len(words), len(kept)), words


def _held(cell: Any) -> float | None:
    """Return the number in a cell, None where it is none, missing, or beyond what float32 holds."""
    value = number(cell)
    return value if value is not None and abs(value) <= _LARGEST else None


def _why(cell: Any, column: str) -> str:
    """Return what is wrong with a cell that holds no number."""
    if cell is None or not str(cell).strip():
        return f"has nothing in column {shown(column)}"
    why = "which is no number" if number(cell) is None else "which is no finite float32"
    return f"has {shown(cell)} in column {shown(column)}, {why}"


def _is_none(label: Any) -> bool:
    """Return whether a cell tells no class."""
    if isinstance(label, float):
        return not math.isfinite(label)
    text = "" if label is None or isinstance(label, list | dict) else str(label).strip()
    return text.casefold() in NO_WORDS


def _word(label: Any) -> str:
    """Return a class as written."""
    if isinstance(label, float) and label == int(label):
        return str(int(label))
    return str(label).lower() if isinstance(label, bool) else str(label).strip()


def _check_classes(table: Table, place: int, words: Sequence[str]) -> None:
    """Refuse numbers with fractions as classes.

    Raises:
      InputError: as described.
    """
    found = set(words)
    numbers = [word for word in found if number(word) is not None]
    if (
        len(numbers) < len(found)
        or len(found) <= 2
        or all(whole(word) is not None for word in found)
    ):
        return
    raise InputError(
        f"data {table.path}: column {shown(table.columns[place])} has {len(found)} different "
        f"numbers with fractions, as {min(found):.20}: a quantity, not classes, and task network "
        f"tells classes apart. Name the column of classes with {LABEL_FLAG} NAME, or cut the "
        "quantity into a few ranges, one word each."
    )


def _check_guess(table: Table, place: int, words: Sequence[str], said: list[str]) -> None:
    """Say which column is taken for the classes where its numbers may be a quantity."""
    found = set(words)
    if len(found) > _MOST_SILENT and all(whole(word) is not None for word in found):
        said.append(
            f"the last column of {table.path.name}, {shown(table.columns[place])}, is taken for "
            f"classes: {len(found)} different numbers; {LABEL_FLAG} would name another"
        )


def _windows(
    path: Path, inputs: NDArray[Any], labels: NDArray[Any], rows: int, stride: int
) -> tuple[Part, Part]:
    """Cut runs of one label into windows; the last fifth of every run is for the test.

    Windows overlap, so a random split would test on rows that were trained on.
    """
    starts: tuple[list[int], list[int]] = ([], [])
    begin = 0
    for _, run in groupby(labels.tolist()):
        end = begin + len(list(run))
        cut = end - round(_TEST_SHARE * (end - begin))
        starts[0].extend(range(begin, cut - rows + 1, stride))
        starts[1].extend(range(cut, end - rows + 1, stride))
        begin = end
    if not starts[0] or not starts[1]:
        raise InputError(
            f"data {path}: windows of {rows} rows leave {len(starts[0])} for training and "
            f"{len(starts[1])} for the test; runs of one label are too short. Try a smaller window."
        )
    parts = []
    for some in starts:
        where = np.array(some)[:, None] + np.arange(rows)
        parts.append((inputs[where], labels[some]))
    return parts[0], parts[1]
