"""What LevelSetUDF makes small, and the slopes of it for distances and slopes of the field.

    moved      = query - distance * unit slope
    Chamfer-L1 of the moved queries and of the points nearest to the queries
    + 0.002 * exp(-10 distance) * (1 - |cos(slope at the query, slope where it was moved to)|)
    + 0.1   * distance of points of the cloud
    + 0.01  * (1 - |cos(slope at the query, query - its nearest point)|)

Source: arXiv:2308.13441 and its code, weights as published. The slope where a query was moved to
does not change with the place it is moved to, but at kinks (`field`), so nothing goes that way.
"""

from typing import NamedTuple

import numpy as np

from edge_train.arrays.nearest import nearest
from edge_train.arrays.types import Array

AGREE, AGREE_FALL, SURFACE, AIM = 0.002, 10.0, 0.1, 0.01
_TINY = np.float32(1e-12)


class Unit(NamedTuple):
    """Unit vectors (points, 3) and the lengths (points, 1) that they were divided by."""

    vectors: Array
    lengths: Array

    def back(self, errors: Array) -> Array:
        """Return the slopes for what was normalised, from those for the unit vectors."""
        along = (errors * self.vectors).sum(axis=1, keepdims=True)
        found: Array = (errors - self.vectors * along) / self.lengths
        return found


def unit_of(vectors: Array) -> Unit:
    """Return vectors at length 1; those of no length stay zero."""
    lengths = np.maximum(np.sqrt(np.square(vectors).sum(axis=1, keepdims=True)), _TINY)
    return Unit(vectors / lengths, lengths)


def chamfer_l1(moved: Array, points: Array) -> tuple[Array, Array]:
    """Return each query's part of the Chamfer-L1 distance, and slopes for the moved queries.

    The mean over queries is (mean distance from queries to points + the other way) / 2.

    Args:
      moved, points: (queries, 3) each.
    """
    twice = np.float32(2 * len(moved))
    ahead, far = nearest(moved, points)
    back, far_back = nearest(points, moved)
    losses: Array = (far + far_back) * np.float32(0.5)
    slopes = (moved - points[ahead]) / (twice * np.maximum(far, _TINY))[:, None]
    pulled = (moved[back] - points) / (twice * np.maximum(far_back, _TINY))[:, None]
    np.add.at(slopes, back, pulled)
    return losses, slopes


def aligned(a: Array, b: Array) -> tuple[Array, Array]:
    """Return 1 - |cosine| of unit vectors (points, 3), and the sign of each cosine, (points, 1)."""
    cosine = (a * b).sum(axis=1)
    return 1 - np.abs(cosine), np.sign(cosine)[:, None]
