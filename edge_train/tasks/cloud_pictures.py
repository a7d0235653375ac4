"""Clouds and meshes as small pictures: seen from above a corner, near points darker."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_train.formats.atomic import write_bytes

_SIDE = 240  # pixels of a cloud
_TURN = (np.deg2rad(35.0), np.deg2rad(25.0))  # around the vertical axis, then towards us
_NEAR, _FAR = 20, 190  # grey


def draw_row(path: Path, clouds: Sequence[NDArray[np.floating]]) -> None:
    """Write a .png with clouds beside each other, in the frame of the first one.

    Args:
      clouds: (points, 3) each.

    Raises:
      RunFolderError: it cannot be written.
    """
    from io import BytesIO

    first = clouds[0].astype(np.float64)
    center = (first.min(axis=0) + first.max(axis=0)) / 2
    radius = max(float(np.sqrt(np.square(first - center).sum(axis=1).max())), 1e-12)
    row = np.concatenate([_seen((c - center) / radius) for c in clouds], axis=1)
    content = BytesIO()
    Image.fromarray(row).save(content, "PNG", optimize=True)
    write_bytes(path, content.getvalue())


def _seen(points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a grey picture of points around zero with a radius of 1; y is up."""
    around, towards = _TURN
    x = np.cos(around) * points[:, 0] + np.sin(around) * points[:, 2]
    depth = np.cos(around) * points[:, 2] - np.sin(around) * points[:, 0]
    y = np.cos(towards) * points[:, 1] - np.sin(towards) * depth
    depth = np.cos(towards) * depth + np.sin(towards) * points[:, 1]
    canvas = np.full((_SIDE, _SIDE), 255, np.uint8)
    columns = np.rint((0.46 * x + 0.5) * (_SIDE - 1)).astype(np.int64)
    rows = np.rint((0.5 - 0.46 * y) * (_SIDE - 1)).astype(np.int64)
    grey = np.clip(_FAR - (depth + 1) / 2 * (_FAR - _NEAR), _NEAR, _FAR).astype(np.uint8)
    size = 2 if len(points) < 5000 else 1  # pixels of a point
    for number in np.argsort(depth):  # near ones last
        row, column = rows[number], columns[number]
        if 0 <= row < _SIDE and 0 <= column < _SIDE:
            canvas[row : row + size, column : column + size] = grey[number]
    return canvas
