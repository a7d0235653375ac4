"""Token vectors of a frozen encoder on disk: INT8 with a scale a token, mapped, never loaded whole.

A file of records, one a token: its scale, float32, little end first, then `width` codes, int8. A
vector is scale * codes; the largest of its values is code 127.
"""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.runtimes.mapped_file import MappedFile

_MOST = 127
WINDOW_BYTES = 32_000_000  # of the file that are held: then its pages are let go


def record_type(width: int) -> np.dtype[Any]:
    """Return the type of a token's record."""
    return np.dtype([("scale", "<f4"), ("codes", "i1", (width,))])


def packed(vectors: Array) -> NDArray[Any]:
    """Return vectors (tokens, width) as records.

    >>> one = packed(np.array([[0.5, -1.0]], np.float32))
    >>> one["codes"].tolist(), round(float(one["scale"][0]), 5)
    ([[64, -127]], 0.00787)
    """
    records = np.empty(len(vectors), record_type(vectors.shape[1]))
    scale = np.abs(vectors).max(axis=1) / np.float32(_MOST)
    scale[scale == 0] = 1
    records["scale"] = scale
    records["codes"] = np.rint(vectors / scale[:, None])
    return records


def unpacked(records: NDArray[Any]) -> Array:
    """Return the vectors (tokens, width) of records, float32."""
    vectors: Array = records["codes"].astype(np.float32)
    vectors *= records["scale"][:, None]
    return vectors


def write_vectors(path: Path, parts: Iterable[NDArray[Any]]) -> None:
    """Write records, a part at a time; the file appears whole or not at all."""
    write_parts(path, (part.tobytes() for part in parts))


class TokenVectors:
    """The vectors of many texts, in order.

    Args:
      starts: (texts + 1,) int64, where each text's tokens begin.

    Whatever is read, this process holds `WINDOW_BYTES` of the file and what a call reads at most:
    pages beyond it are let go, and whoever reads them next gets them from the system's cache.

    Raises:
      RunFolderError: the file is missing or of another size.
    """

    def __init__(self, path: Path, starts: NDArray[np.int64], width: int) -> None:
        self.starts, self.width = starts, width
        self._type = record_type(width)
        wanted = int(starts[-1]) * self._type.itemsize
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                if size != wanted or not size:
                    raise RunFolderError(f"{path}: {size} bytes, expected {wanted}; it is damaged.")
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror}).") from error
        self._file, self._read_bytes = MappedFile(mapping, size), 0
        self._records = np.frombuffer(mapping, self._type)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def text(self, number: int) -> Array:
        """Return the vectors of a text, (tokens, width) float32."""
        return self._unpacked(slice(self.starts[number], self.starts[number + 1]))

    def tokens(self, rows: NDArray[np.int64]) -> Array:
        """Return the vectors of some tokens, counted over all texts."""
        return self._unpacked(rows)

    def _unpacked(self, rows: slice | NDArray[np.int64]) -> Array:
        records = self._records[rows]
        vectors = unpacked(records)
        self._count(records.nbytes)
        return vectors

    def _count(self, read_bytes: int) -> None:
        """Let go of the file's pages where enough of them were read."""
        self._read_bytes += read_bytes
        if self._read_bytes > WINDOW_BYTES:
            self._file.release()
            self._read_bytes = 0

    def runs(self, first: int, last: int, tokens: int) -> Iterator[tuple[int, int]]:
        """Yield neighbouring texts, first and behind the last, of about so many tokens."""
        start = first
        while start < last:
            reach = self.starts[start] + tokens
            end = int(np.searchsorted(self.starts, reach, side="right")) - 1
            end = min(max(end, start + 1), last)
            yield start, end
            start = end

    def checksum_parts(self) -> Iterator[bytes]:
        """Yield the file's bytes, a megabyte at a time."""
        step = max(1, (1 << 20) // self._type.itemsize)
        for start in range(0, len(self._records), step):
            part = self._records[start : start + step].tobytes()
            self._count(len(part))
            yield part
