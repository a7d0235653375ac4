"""Readers of `.xyz` (a point a line) and `.obj` (Wavefront) files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.clouds.parts import (
    DamagedCloud,
    Source,
    fan,
    lines_of,
    numbers_of,
    shown,
    triangles_of,
    whole_numbers,
)


def open_xyz(path: Path) -> Source:
    """Return a text file of points: three numbers a line, more are left out.

    Spaces, tabs, commas or semicolons are between them; lines that start with # or // are comments,
    and a first line of one number, a count, is left out.
    """
    return Source(lambda: _xyz(path))


def _xyz(path: Path) -> Iterator[NDArray[np.float64]]:
    is_first = True
    with open(path, "rb") as file:
        for lines in lines_of(file):
            rows = []
            for line in lines:
                words = line.replace(b",", b" ").replace(b";", b" ").split()
                if not words or words[0].startswith((b"#", b"//")):
                    continue
                if len(words) < 3 and not (is_first and len(words) == 1):
                    raise DamagedCloud(
                        f"has the line {shown(line)}, expected x, y and z, numbers with spaces "
                        "between them."
                    )
                if len(words) >= 3:
                    rows.append(words[:3])
                is_first = False
            yield numbers_of(rows)


def open_obj(path: Path) -> Source:
    """Return a Wavefront file: corners (`v`) and polygons (`f`); all else is left out."""
    with open(path, "rb") as file:
        has_faces = any(
            line.startswith(b"f ") for lines in lines_of(file) for line in map(bytes.lstrip, lines)
        )
    return Source(lambda: _obj(path), has_faces)


def _obj(path: Path) -> Iterator[NDArray[Any]]:
    count = 0
    with open(path, "rb") as file:
        for lines in lines_of(file):
            rows: list[list[bytes]] = []
            faces: list[tuple[int, int, int]] = []
            for line in lines:
                words = line.split()
                if words and words[0] == b"v":
                    rows.append(words[1:4])
                elif words and words[0] == b"f":
                    corners = whole_numbers([w.split(b"/")[0] for w in words[1:]], "a corner")
                    # from 1 on; negative ones count from the last corner so far
                    last = count + len(rows)
                    faces += fan([n - 1 if n > 0 else last + n if n else -1 for n in corners])
            count += len(rows)
            yield numbers_of(rows)
            yield triangles_of(faces)
