"""Which columns of a table are the text, the second text of a pair and the label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.tables.names import (
    LABEL_FLAG,
    LABELS,
    PAIR_FLAG,
    TEXT_FLAG,
    TEXTS,
    lengths,
    pair_in,
)
from edge_train.formats.tables.table import Table
from edge_train.tasks.classify.labels import written
from edge_train.units import shown

_FEW_ROWS = 20  # from so many on a column of labels repeats itself


@dataclass(frozen=True)
class Columns:
    """Names of columns that a user gave; None: to be found."""

    text: str | None = None
    label: str | None = None
    pair: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Places:
    """Where a row has its text, its label (None: there are no labels) and its second text.

    Attributes:
      said: a line for the user where columns were told by what is in them.
    """

    text: int
    label: int | None
    pair: int | None
    said: str = ""


def places_of(table: Table, asked: Columns) -> Places:
    """Return the columns of a training table: as asked, by their names, or by what is in them.

    Without names the labels are the column of numbers that repeat, else the one with the fewest
    different values, else the last; the text is the longest of the others.

    Raises:
      InputError: a column that was asked for is not there, or no column looks like it.
    """
    if len(table.columns) < 2:
        found = f"has only {table.names()}" if table.named else "line 1 has 1 columns"
        raise InputError(f"{table.path}: {found}, expected 2: a text and its label.")
    named = pair_in(table) if asked.text is None else None
    texts, labels = table.among(TEXTS), table.among(LABELS)
    text = pair = label = None
    if asked.pair is not None:
        pair = table.place(asked.pair, PAIR_FLAG)
    elif named is not None:
        pair = named[1]
    if asked.text is not None:
        text = table.place(asked.text, TEXT_FLAG)
    elif named is not None and (asked.pair is None or pair == named[1]):
        text = named[0]
    elif texts:
        text = next((place for place in texts if place != pair), None)
    if asked.label is not None:
        label = table.place(asked.label, LABEL_FLAG)
    elif labels:
        label = next((place for place in labels if place not in (text, pair)), None)
    if text is not None and label is not None:
        return Places(text, label, pair)
    guessed = label is None, text is None
    if label is None:
        label = _label_in(table, (text, pair))
    if text is None:
        text = _text_in(table, (label, pair))
    parts = (("texts", text, guessed[1], TEXT_FLAG), ("labels", label, guessed[0], LABEL_FLAG))
    words = [f"{what} are {_column(table, at)}" for what, at, guess, _ in parts if guess]
    flags = [flag for *_, guess, flag in parts if guess]
    said = f"of {table.path.name}, {' and '.join(words)}; {' and '.join(flags)} would name others"
    return Places(text, label, pair, said)


def places_like(table: Table, train: Table, places: Places) -> Places:
    """Return the columns of a dev or test table that are those of the training table.

    Raises:
      InputError: its texts are missing.
    """
    if not table.named:
        width = len(table.columns)
        label = places.label if width == len(train.columns) else None
        if max(places.text, places.pair or 0) < width:
            return Places(places.text, label, places.pair)
        raise InputError(
            f"{table.path}: it has {width} columns, {train.path} {len(train.columns)}."
        )

    def same(place: int | None) -> int | None:
        if place is None:
            return None
        if not train.named:
            return place if len(table.columns) == len(train.columns) else None
        found = table.among((train.columns[place].strip().casefold(),))
        return place if place in found else next(iter(found), None)

    text, pair = same(places.text), same(places.pair)
    if text is None or (places.pair is not None and pair is None):
        missing = places.text if text is None else places.pair
        assert missing is not None
        raise InputError(
            f"{table.path}: no column {shown(train.columns[missing])} as in {train.path.name}; it "
            f"has {table.names()}."
        )
    return Places(text, same(places.label), pair)


def _label_in(table: Table, taken: Sequence[int | None]) -> int:
    """Return the column that looks like labels.

    Raises:
      InputError: none does.
    """
    rows = table.sample
    found = []
    for place in range(len(table.columns)):
        cells = [written(row[place]) for row in rows]
        if place not in taken and None not in cells:
            values = {cell for cell in cells if cell is not None}
            numbers = all(cell.isdecimal() for cell in values)
            found.append((not numbers, len(values), -place))
    repeated = [one for one in found if one[1] <= max(2, len(rows) // 2)]
    if (not repeated and len(rows) >= _FEW_ROWS) or not found:
        raise InputError(
            f"{table.path}: no column looks like labels: none has values that repeat. It has "
            f"{table.names()}; name the columns with {TEXT_FLAG} NAME and {LABEL_FLAG} NAME."
        )
    return -min(repeated or found)[2]


def _text_in(table: Table, taken: Sequence[int | None]) -> int:
    free = [place for place in range(len(table.columns)) if place not in taken]
    if not free:
        raise InputError(
            f"{table.path}: no column is left for texts; name it with {TEXT_FLAG} NAME."
        )
    return max(free, key=lambda place: (lengths(table.sample, place), -place))


def _column(table: Table, place: int) -> str:
    name: Any = table.columns[place]
    return f"column {shown(name)}" if table.named else str(name)
