"""Reader and writer of `.ply` (Stanford) files, text and binary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.atomic import write_parts
from edge_train.formats.clouds.parts import (
    AT_ONCE,
    DamagedCloud,
    Source,
    bytes_left,
    fan,
    lines_of,
    numbers_of,
    shown,
    triangles_of,
    whole_numbers,
)

_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "float32": "f4",
    "float64": "f8",
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_BYTES = 1 << 16
_MOST_CORNERS = 4096  # of a polygon
_INDICES = ("vertex_indices", "vertex_index")


@dataclass
class _Element:
    """A kind of rows: names and types of its numbers; `lists` has those that are lists."""

    name: str
    count: int
    types: dict[str, str] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)  # type of the length


def open_ply(path: Path) -> Source:
    """Return the points and polygons of a file.

    Raises:
      DamagedCloud: its header is wrong, or promises more than the file holds.
    """
    with open(path, "rb") as file:
        order, elements, start = _header(file)
        left = bytes_left(file)
    corners = elements[0] if elements else None
    if corners is None or corners.name != "vertex" or corners.lists:
        raise DamagedCloud("its header does not begin with an element vertex of plain numbers.")
    if not {"x", "y", "z"} <= corners.types.keys():
        raise DamagedCloud("its vertices have no x, y and z.")
    for one in elements:
        least = 2 if order == "" else _row_bytes(one)
        if one.count * least > left:
            raise DamagedCloud(
                f"says it has {one.count:,} of {one.name}, but {left:,} bytes follow; it is cut "
                "off or damaged."
            )
    faces = elements[1] if len(elements) > 1 and elements[1].name == "face" else None
    if faces is not None and (not faces.count or not set(_INDICES) & faces.lists.keys()):
        faces = None
    return Source(lambda: _parts(path, order, start, corners, faces), faces is not None)


def _row_bytes(one: _Element) -> int:
    plain = {name: kind for name, kind in one.types.items() if name not in one.lists}
    kinds = [*plain.values(), *one.lists.values()]
    return sum(np.dtype(kind).itemsize for kind in kinds)


def _header(file: IO[bytes]) -> tuple[str, list[_Element], int]:
    """Return byte order ("" for text), the elements, and where their rows begin."""
    content = file.read(_HEADER_BYTES)
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise DamagedCloud("is no .ply file: it has no header from ply to end_header.")
    start = content.find(b"\n", end) + 1
    if not start:
        raise DamagedCloud("ends with its header.")
    file.seek(start)
    order, elements = None, list[_Element]()
    for line in content[:end].replace(b"\r", b"\n").split(b"\n")[1:]:
        words = [word.decode("ascii", "replace") for word in line.split()]
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) > 1 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3:
            (count,) = whole_numbers([words[2].encode()], "a count")
            if count < 0:
                raise DamagedCloud(f"says it has {count} of {words[1]}.")
            elements.append(_Element(words[1], count))
        elif words[0] == "property" and elements and _add(elements[-1], words[1:]):
            pass
        else:
            raise DamagedCloud(f"its header has the line {shown(line)}, which nobody knows.")
    if order is None:
        raise DamagedCloud("its header does not say whether it is text or binary.")
    return order, elements, start


def _add(element: _Element, words: list[str]) -> bool:
    """Add a property; return False where it is none."""
    if len(words) == 2 and words[0] in _TYPES:
        element.types[words[1]] = _TYPES[words[0]]
        return True
    if len(words) == 4 and words[0] == "list" and {words[1], words[2]} <= _TYPES.keys():
        if _TYPES[words[1]][0] == "f" or (words[3] in _INDICES and _TYPES[words[2]][0] == "f"):
            return False  # neither a length nor a corner is a fraction
        element.lists[words[3]] = _TYPES[words[1]]
        element.types[words[3]] = _TYPES[words[2]]
        return True
    return False


def _parts(
    path: Path, order: str, start: int, corners: _Element, faces: _Element | None
) -> Iterator[NDArray[Any]]:
    with open(path, "rb") as file:
        file.seek(start)
        if order == "":
            yield from _text(file, corners, faces)
            return
        kind = np.dtype([(name, order + code) for name, code in corners.types.items()])
        for some in _chunks(corners.count, kind.itemsize):
            rows = np.frombuffer(_read(file, some * kind.itemsize), kind)
            yield np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
        if faces is not None:
            yield from _binary_faces(file, order, faces)


def _chunks(count: int, row_bytes: int) -> Iterator[int]:
    """Yield how many rows are read at once, until all are."""
    most = max(AT_ONCE // row_bytes, 1)
    while count:
        yield min(most, count)
        count -= min(most, count)


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise DamagedCloud("is cut off: it has fewer rows than its header says.")
    return content


def _text(file: IO[bytes], corners: _Element, faces: _Element | None) -> Iterator[NDArray[Any]]:
    places = [list(corners.types).index(axis) for axis in "xyz"]
    points, polygons = corners.count, faces.count if faces else 0
    for lines in lines_of(file):
        rows: list[list[bytes]] = []
        found: list[tuple[int, int, int]] = []
        for line in lines:
            if not (words := line.split()):
                continue
            if points:
                points -= 1
                if len(words) <= max(places):
                    raise DamagedCloud(f"has the line {shown(line)}, too short for a vertex.")
                rows.append([words[place] for place in places])
            elif polygons:
                polygons -= 1
                found += fan(_polygon(words, faces))
        yield numbers_of(rows)
        yield triangles_of(found)
    if points or polygons:
        raise DamagedCloud("is cut off: it has fewer rows than its header says.")


def _polygon(words: list[bytes], faces: _Element | None) -> list[int]:
    """Return the corners that a line of text names."""
    assert faces is not None
    at = 0
    for name in faces.types:
        if name not in faces.lists:
            at += 1
            continue
        (length,) = whole_numbers(words[at : at + 1] or [b"nothing"], "the length of a polygon")
        if not 0 <= length <= min(_MOST_CORNERS, len(words) - at - 1):
            raise DamagedCloud(
                f"has a polygon of {length} corners in a line of {len(words)} words."
            )
        if name in _INDICES:
            return whole_numbers(words[at + 1 : at + 1 + length], "a corner")
        at += 1 + length
    return []


def _binary_faces(file: IO[bytes], order: str, faces: _Element) -> Iterator[NDArray[np.int64]]:
    """Yield triangles; rows whose only list has three corners are read many at once."""
    (name,) = (one for one in faces.types if one in _INDICES and one in faces.lists)
    fields = []
    for one, code in faces.types.items():
        if one in faces.lists:
            fields += [(f"{one} length", order + faces.lists[one]), (one, order + code, (3,))]
        else:
            fields.append((one, order + code))
    kind, left = np.dtype(fields), faces.count
    plain = len(faces.lists) == 1
    while left and plain:
        some, here = min(left, max(AT_ONCE // kind.itemsize, 1)), file.tell()
        content = file.read(some * kind.itemsize)
        rows = np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)
        if len(rows) < some or (rows[f"{name} length"] != 3).any():
            file.seek(here)
            break
        yield rows[name].astype(np.int64)
        left -= some
    found: list[tuple[int, int, int]] = []
    for _ in range(left):
        found += fan(_binary_polygon(file, order, faces, name))
        if len(found) > AT_ONCE // 24:
            yield triangles_of(found)
            found = []
    yield triangles_of(found)


def _binary_polygon(file: IO[bytes], order: str, faces: _Element, name: str) -> list[int]:
    polygon: list[int] = []
    for one, code in faces.types.items():
        count = 1
        if one in faces.lists:
            length = np.dtype(order + faces.lists[one])
            count = int(np.frombuffer(_read(file, length.itemsize), length)[0])
            if not 0 <= count <= _MOST_CORNERS:
                raise DamagedCloud(f"has a polygon of {count} corners.")
        kind = np.dtype(order + code)
        values = np.frombuffer(_read(file, count * kind.itemsize), kind)
        if one == name:
            polygon = values.astype(np.int64).tolist()
    return polygon


def write_ply(
    path: Path,
    points: NDArray[np.floating],
    triangles: NDArray[np.int64] | None = None,
    more: Mapping[str, NDArray[np.floating]] | None = None,
) -> None:
    """Write points, or a mesh, as binary little-endian `.ply`, whole or not at all.

    Coordinates are doubles: those of a map have more digits than a float holds.

    Args:
      points: (n, 3).
      triangles: (m, 3).
      more: other numbers of each point by name, such as `nx`; floats in the file.

    Raises:
      RunFolderError: it cannot be written.
    """
    more = more or {}
    kind = np.dtype([*((axis, "<f8") for axis in "xyz"), *((name, "<f4") for name in more)])
    rows = np.empty(len(points), kind)
    for number, axis in enumerate("xyz"):
        rows[axis] = points[:, number]
    for name, values in more.items():
        rows[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property double {axis}" for axis in "xyz"]
    header += [f"property float {name}" for name in more]
    parts = [rows.tobytes()]
    if triangles is not None:
        header += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
        faces = np.empty(len(triangles), np.dtype([("length", "u1"), ("corners", "<i4", (3,))]))
        faces["length"], faces["corners"] = 3, triangles
        parts.append(faces.tobytes())
    write_parts(path, ["\n".join([*header, "end_header\n"]).encode(), *parts])
