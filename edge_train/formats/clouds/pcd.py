"""Reader of `.pcd` files (Point Cloud Library): text, binary, and binary compressed by LZF."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.clouds.parts import (
    AT_ONCE,
    DamagedCloud,
    Source,
    bytes_left,
    lines_of,
    numbers_of,
    shown,
    whole_numbers,
)

_HEADER_LINES, _LINE_BYTES = 64, 4096
_MOST_BYTES = 1_000_000_000  # of a cloud that was compressed
_MOST_COUNT = 10_000  # numbers of a field


@dataclass(frozen=True)
class _Header:
    fields: tuple[str, ...]
    kinds: tuple[np.dtype[np.generic], ...]
    counts: tuple[int, ...]
    points: int
    data: str
    start: int

    @property
    def row_bytes(self) -> int:
        return sum(k.itemsize * c for k, c in zip(self.kinds, self.counts, strict=True))


def open_pcd(path: Path) -> Source:
    """Return the points of a file.

    Raises:
      DamagedCloud: its header is wrong, or promises more than the file holds.
    """
    with open(path, "rb") as file:
        header = _header(file)
        left = bytes_left(file)
    least = {"ascii": 2, "binary": header.row_bytes, "binary_compressed": 0}[header.data]
    if header.points * least > left:
        raise DamagedCloud(
            f"says it has {header.points:,} points, but {left:,} bytes follow; it is cut off or "
            "damaged."
        )
    reads = {"ascii": _text, "binary": _binary, "binary_compressed": _compressed}
    return Source(lambda: reads[header.data](path, header))


def _header(file: IO[bytes]) -> _Header:
    found: dict[str, list[bytes]] = {}
    for _ in range(_HEADER_LINES):
        line = file.readline(_LINE_BYTES)
        words = line.split(b"#")[0].split()
        if words:
            found[words[0].decode("ascii", "replace").upper()] = words[1:]
        if "DATA" in found or not line:
            break
    missing = [name for name in ("FIELDS", "SIZE", "TYPE", "POINTS", "DATA") if name not in found]
    if missing:
        raise DamagedCloud(f"is no .pcd file: its header has no {missing[0]}.")
    names = tuple(word.decode("ascii", "replace") for word in found["FIELDS"])
    sizes = whole_numbers(found["SIZE"], "SIZE")
    counts = whole_numbers(found.get("COUNT", [b"1"] * len(names)), "COUNT")
    kinds = [f"{t.decode('ascii', 'replace').lower()}{n}" for t, n in zip(found["TYPE"], sizes)]  # noqa: B905
    known = {"f4", "f8", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8))}
    points = whole_numbers(found["POINTS"], "POINTS")
    data = b" ".join(found["DATA"]).decode("ascii", "replace").lower()
    if not len(names) == len(sizes) == len(kinds) == len(counts) or not set(kinds) <= known:
        raise DamagedCloud("FIELDS, SIZE, TYPE and COUNT of its header do not fit together.")
    if not {"x", "y", "z"} <= set(names) or len(set(names) - {"_"}) < len(
        [name for name in names if name != "_"]
    ):
        raise DamagedCloud("its FIELDS have no x, y and z, or one twice.")
    if len(points) != 1 or points[0] < 0 or not all(0 < n <= _MOST_COUNT for n in counts):
        raise DamagedCloud("POINTS or COUNT of its header are no numbers of points and fields.")
    if data not in ("ascii", "binary", "binary_compressed"):
        raise DamagedCloud(f"DATA of its header is {shown(data.encode())}.")
    types = tuple(np.dtype(f"<{kind}") for kind in kinds)
    return _Header(names, types, tuple(counts), points[0], data, file.tell())


def _text(path: Path, header: _Header) -> Iterator[NDArray[np.float64]]:
    starts = np.concatenate([[0], np.cumsum(header.counts)])
    places = [int(starts[header.fields.index(axis)]) for axis in "xyz"]
    left = header.points
    with open(path, "rb") as file:
        file.seek(header.start)
        for lines in lines_of(file):
            rows = []
            for line in lines:
                words = line.split()
                if not words or not left:
                    continue
                left -= 1
                if len(words) <= max(places):
                    raise DamagedCloud(f"has the line {shown(line)}, too short for its fields.")
                rows.append([words[place] for place in places])
            yield numbers_of(rows)
    if left:
        raise DamagedCloud("is cut off: it has fewer points than its header says.")


def _binary(path: Path, header: _Header) -> Iterator[NDArray[np.float64]]:
    row, left = header.row_bytes, header.points
    with open(path, "rb") as file:
        file.seek(header.start)
        while left:
            some = min(left, max(AT_ONCE // row, 1))
            content = file.read(some * row)
            if len(content) < some * row:
                raise DamagedCloud("is cut off: it has fewer points than its header says.")
            rows = np.frombuffer(content, np.uint8).reshape(some, row)
            yield np.stack([_column(rows, header, axis) for axis in "xyz"], axis=1)
            left -= some


def _column(rows: NDArray[np.uint8], header: _Header, axis: str) -> NDArray[np.float64]:
    number = header.fields.index(axis)
    sizes = [k.itemsize * c for k, c in zip(header.kinds, header.counts, strict=True)]
    start, kind = sum(sizes[:number]), header.kinds[number]
    part = np.ascontiguousarray(rows[:, start : start + kind.itemsize])
    return part.view(kind)[:, 0].astype(np.float64)


def _compressed(path: Path, header: _Header) -> Iterator[NDArray[np.float64]]:
    """Yield all points at once: fields lie one after another, each with all points."""
    with open(path, "rb") as file:
        file.seek(header.start)
        first, whole = file.read(8), header.points * header.row_bytes
        packed_bytes, size = (int.from_bytes(first[at : at + 4], "little") for at in (0, 4))
        if len(first) < 8 or size != whole or whole > _MOST_BYTES:
            raise DamagedCloud(
                f"its {header.points:,} points do not fit the size that its data name, or are more "
                f"than {_MOST_BYTES:,} bytes."
            )
        packed = file.read(packed_bytes)
    if len(packed) < packed_bytes:
        raise DamagedCloud("is cut off: it has fewer bytes than it says.")
    content = unpacked(packed, whole)
    starts, at = {}, 0
    for name, kind, count in zip(header.fields, header.kinds, header.counts, strict=True):
        starts[name] = at, kind
        at += kind.itemsize * count * header.points
    columns = [np.frombuffer(content, k, header.points, s) for s, k in map(starts.get, "xyz")]  # type: ignore[misc]
    yield np.stack([column.astype(np.float64) for column in columns], axis=1)


def unpacked(packed: bytes, size: int) -> bytes:
    """Return what LZF packed.

    Raises:
      DamagedCloud: it is not `size` bytes long, or refers to what is not there.

    Source: the format of LibLZF (Marc Lehmann), as the Point Cloud Library uses it.

    >>> unpacked(bytes([2, 97, 98, 99, 0x20, 2]), 6)
    b'abcabc'
    """
    out, at = bytearray(), 0
    try:
        while at < len(packed):
            control = packed[at]
            at += 1
            if control < 32:  # so many bytes, as they are
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - packed[at] - 1
            at += 1
            if start < 0:
                raise DamagedCloud("its compressed data are damaged.")
            piece = out[start : start + length + 2]
            while len(piece) < length + 2:  # it repeats what it has just written
                piece += piece
            out += piece[: length + 2]
            if len(out) > size:
                break
    except IndexError as error:
        raise DamagedCloud("its compressed data are cut off.") from error
    if len(out) != size:
        raise DamagedCloud(f"its compressed data are {len(out):,} bytes, expected {size:,}.")
    return bytes(out)
