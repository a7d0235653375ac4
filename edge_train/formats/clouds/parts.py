"""What readers of clouds share: parts of a file, its lines, and the error of a damaged one."""

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 18  # bytes of a file that become numbers at once
_LONGEST_LINE = 1 << 16  # bytes
_SHOWN = 40  # bytes of a wrong line


class DamagedCloud(Exception):
    """What is wrong with a file, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Source:
    """An open file.

    Attributes:
      parts: yields (n, 3) float64 points and (m, 3) int64 triangles, in the order of the file.
      has_faces: whether there are triangles or polygons.
    """

    parts: Callable[[], Iterator[NDArray[Any]]]
    has_faces: bool = False


def lines_of(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some at a time, without the mark of UTF-8 before the first.

    Raises:
      DamagedCloud: a line has no end.
    """
    rest, mark = b"", codecs.BOM_UTF8 if file.tell() == 0 else b""
    while chunk := file.read(AT_ONCE):
        chunk, mark = chunk.removeprefix(mark), b""
        lines = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        rest = lines.pop()
        if len(rest) > _LONGEST_LINE:
            raise DamagedCloud(f"has a line of more than {_LONGEST_LINE:,} bytes; it is no text.")
        yield lines
    if rest:
        yield [rest]


def numbers_of(rows: list[list[bytes]]) -> NDArray[np.float64]:
    """Return words as numbers; each row has three.

    Raises:
      DamagedCloud: a word is no number, or a row is too short.
    """
    if not rows:
        return np.empty((0, 3))
    for row in rows:
        if len(row) != 3:
            raise DamagedCloud(f"a line has {len(row)} numbers, expected x, y and z.")
    try:
        return np.array([[float(word) for word in row] for row in rows], np.float64)
    except ValueError as error:
        raise DamagedCloud(f"a coordinate is no number ({error}).") from error


def whole_numbers(words: list[bytes], what: str) -> list[int]:
    """Return words as whole numbers.

    Raises:
      DamagedCloud: one is none, or larger than any file.
    """
    try:
        found = [int(word) for word in words]
    except ValueError as error:
        raise DamagedCloud(f"{what} is {shown(b' '.join(words))}, no whole number.") from error
    if any(abs(number) >= 1 << 62 for number in found):
        raise DamagedCloud(f"{what} is {shown(b' '.join(words))}, too large for any file.")
    return found


def shown(line: bytes) -> str:
    """Return the start of a line, for a message."""
    return repr(line[:_SHOWN].decode("ascii", "replace"))


def fan(polygon: list[int]) -> list[tuple[int, int, int]]:
    """Return the triangles of a polygon.

    >>> fan([4, 5, 6, 7])
    [(4, 5, 6), (4, 6, 7)]
    """
    return [(polygon[0], polygon[i], polygon[i + 1]) for i in range(1, len(polygon) - 1)]


def bytes_left(file: IO[bytes]) -> int:
    """Return how many bytes follow in a file."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end - here


def triangles_of(rows: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    """Return triangles as an array, (m, 3)."""
    return np.array(rows, np.int64).reshape(-1, 3)
