"""The values of a GGUF header, one behind the other: no length is believed before it is checked."""

import struct
from typing import IO, Any

import numpy as np

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    _BOOL: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_MOST_STRING_BYTES = 16_000_000  # the longest published chat template has a thousandth
_MOST_HEADER_BYTES = 256_000_000  # the largest published vocabulary with its merges has a tenth
_MOST_STRINGS = 4_000_000  # of an array; the largest published vocabulary has a tenth of it
_MOST_NAME_BYTES = 65_535  # of a key, as the format has it


class HeaderReader:
    """Reads values of a header in turn.

    Args:
      file: open at the first value.
      size: of the whole file, in bytes.

    Raises (every method):
      ValueError: a part of a sentence that says what is wrong.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = min(size, _MOST_HEADER_BYTES) - file.tell()

    def number(self, kind: str) -> Any:
        """Return one number of a type as `struct` spells it."""
        layout = struct.Struct("<" + kind)
        return layout.unpack(self._take(layout.size))[0]

    def name(self, most: int = _MOST_NAME_BYTES) -> str:
        """Return a key or the name of a tensor."""
        found = self._string(most)
        if not found:
            raise ValueError("a name is empty")
        return found

    def value(self) -> Any:
        """Return a value with its type: a number, truth value, string, or array of one of these.

        Arrays of numbers are of NumPy, those of strings are lists.
        """
        kind = self.number("I")
        if kind == _STRING:
            return self._string(_MOST_STRING_BYTES)
        if kind == _ARRAY:
            return self._array()
        if kind not in _NUMBERS:
            raise ValueError(f"a value has type {kind}, which the format does not have")
        number = np.frombuffer(self._take(np.dtype(_NUMBERS[kind]).itemsize), _NUMBERS[kind])[0]
        return _truth(int(number)) if kind == _BOOL else number.item()

    def _array(self) -> Any:
        kind, count = self.number("I"), self.number("Q")
        if kind == _ARRAY:
            raise ValueError("an array holds arrays, which no known model has")
        if kind == _STRING:
            if count > min(self._left // 8, _MOST_STRINGS):
                raise ValueError(f"an array claims {count} strings, more than the file can hold")
            return [self._string(_MOST_STRING_BYTES) for _ in range(count)]
        if kind not in _NUMBERS:
            raise ValueError(f"an array has type {kind}, which the format does not have")
        layout = np.dtype(_NUMBERS[kind])
        if count > self._left // layout.itemsize:
            raise ValueError(f"an array claims {count} numbers, more than the file can hold")
        return np.frombuffer(self._take(count * layout.itemsize), layout)

    def _string(self, most: int) -> str:
        length = self.number("Q")
        if length > min(self._left, most):
            raise ValueError(f"a string claims {length} bytes, at most {min(self._left, most)} fit")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise ValueError("a string is not UTF-8") from error

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError("it ends in the middle of its header, or its header is too long")
        found = self._file.read(count)
        if len(found) < count:
            raise ValueError("it ends in the middle of its header")
        self._left -= count
        return found


def _truth(number: int) -> bool:
    if number > 1:
        raise ValueError(f"a truth value is {number}, expected 0 or 1")
    return bool(number)
