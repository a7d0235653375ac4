"""Whether the first row of a table names its columns."""

from collections import Counter
from collections.abc import Collection, Sequence

from edge_train.formats.tables.numbers import is_number

_MOST_LETTERS, _MOST_WORDS = 60, 6  # of a name
_FEWEST_ROWS = 4  # that must stand below a word before it can look like no other


def folded(name: str) -> str:
    """Return a name as names are compared: without capitals, spaces around it and a mark."""
    return name.strip().strip("\ufeff").casefold()


def header_of(
    first: Sequence[str], body: Sequence[Sequence[str]], known: Collection[str]
) -> tuple[bool, str]:
    """Return whether the first row names the columns, and which cell tells where no name is known.

    It does if it has a name that is known; where a column of numbers, or one of a few words again
    and again, begins with a cell like none below it; or if it counts the columns.

    Args:
      body: the next rows, as many as were looked at, of any length.
      known: names of columns in small letters; words that are also cells below are none.

    >>> header_of(["text", "label"], [["a b", "1"]], {"text"})
    (True, '')
    >>> rows = [["a b", "x"], ["b c", "y"], ["c d", "x"], ["d e", "y"]]
    >>> header_of(["Tweet", "Kind"], rows, {"text"})
    (True, 'Kind')
    >>> header_of(["a b", "x"], rows, {"text"})
    (False, '')
    """
    names = [folded(cell) for cell in first]
    columns = [[row[at] for row in body if at < len(row)] for at in range(len(first))]
    below = [set(map(folded, column)) for column in columns]
    if any(name in known and name not in cells for name, cells in zip(names, below, strict=True)):
        return True, ""
    if len(names) > 1 and names in ([str(n) for n in range(len(names))],):
        return True, ""  # as pandas names columns that have no names
    filled = [name for name in names if name]
    width = max((at for at, name in enumerate(names, 1) if name), default=0)
    # one name may be missing, as that of pandas' row numbers, and any behind the last one
    if len(set(filled)) < len(filled) or len(filled) < width - 1 or not filled:
        return False, ""
    if any(len(name) > _MOST_LETTERS or len(name.split()) > _MOST_WORDS for name in filled):
        return False, ""
    if any(map(is_number, filled)):
        return False, ""
    for cell, column in zip(first, columns, strict=True):
        if cell.strip() and column and all(map(is_number, column)):
            return True, ""
    for cell, column in zip(first, columns, strict=True):
        counts = Counter(map(folded, column))
        repeated = len(column) >= _FEWEST_ROWS and min(counts.values()) > 1
        if repeated and cell.strip() and folded(cell) not in counts:
            return True, cell.strip()
    return False, ""
