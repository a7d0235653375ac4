"""Nearest points by comparing all with all, some at a time: short, exact, no tree to keep."""

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

_AT_ONCE = 1 << 20  # distances that exist at once: 4 MB


def squares(a: Array, b: Array) -> Array:
    """Return squared distances of the points of two clouds, (points of a, points of b), >= 0."""
    found: Array = a @ b.T
    found *= -2
    found += np.square(a).sum(axis=1)[:, None]
    found += np.square(b).sum(axis=1)[None]
    return np.maximum(found, 0, out=found)


def nearest(a: Array, b: Array) -> tuple[NDArray[np.int64], Array]:
    """Return which point of `b` is nearest to each point of `a`, and its distance.

    The squares are differences of large numbers, so the distance is computed again from the points.
    """
    which = np.empty(len(a), np.int64)
    step = max(_AT_ONCE // max(len(b), 1), 1)
    for start in range(0, len(a), step):
        which[start : start + step] = squares(a[start : start + step], b).argmin(axis=1)
    return which, np.sqrt(np.square(a - b[which]).sum(axis=1))


def neighbors(points: Array, count: int) -> NDArray[np.int32]:
    """Return the `count` nearest points of each point, itself among them, (points, count).

    The farthest of them is the last; the others are in no order.
    """
    count = min(count, len(points))
    found = np.empty((len(points), count), np.int32)
    step = max(_AT_ONCE // len(points), 1)
    for start in range(0, len(points), step):
        distances = squares(points[start : start + step], points)
        found[start : start + step] = distances.argpartition(count - 1, axis=1)[:, :count]
    return found
