"""Numbers in the cells of a table: points or commas, and whole ones from other programs."""

import math
import re
from typing import Any

_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?)(\d+)(?:\.0*)?")


def number(cell: Any) -> float | None:
    """Return what a cell says as a number, None where it is none; nothing is NaN.

    >>> number("1,5"), number(" 2 "), number(""), number("a"), number(True)
    (1.5, 2.0, nan, None, 1.0)
    """
    if cell is None:
        return math.nan
    if isinstance(cell, bool | int | float):
        try:
            return float(cell)
        except OverflowError:
            return math.inf
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if has_decimal_comma(text):
        text = text.replace(",", ".")
    if "_" in text:  # Python's own way to group digits, which no table means
        return None
    try:
        return float(text or "nan")
    except ValueError:
        return None


def has_decimal_comma(cell: Any) -> bool:
    """Return whether a cell is a number with a comma where others have a point."""
    return isinstance(cell, str) and _COMMA.fullmatch(cell.strip()) is not None


def is_number(cell: Any) -> bool:
    """Return whether a cell says a number; an empty one does not."""
    found = number(cell)
    return found is not None and bool(str(cell).strip()) and cell is not None


def whole(text: str) -> int | None:
    """Return the whole number that a text writes, None where it writes none.

    >>> whole("1.0"), whole("-1"), whole("007"), whole("1.5"), whole("one")
    (1, -1, 7, None, None)
    """
    found = _WHOLE.fullmatch(text)
    if found is None or len(found[2]) > 18:
        return None
    return int(found[1] + found[2])
