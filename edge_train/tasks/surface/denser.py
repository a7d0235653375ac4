"""More points on the surface, with normals, and normals of the points that there are.

Source: the other two uses of LevelSetUDF (arXiv:2308.13441). Its code takes the slope at a point of
the cloud for its normal, where the distance has a kink; we take the slopes of queries around it and
the axis that they agree on, which has no sign.
"""

from collections.abc import Callable

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key
from edge_train.tasks.surface.losses import unit_of
from edge_train.tasks.surface.mesh import Slopes

_AT_ONCE = 4096  # queries of a pass
_FAR = 0.02  # radii of the cloud; queries that are farther from the surface are left out
_AROUND = 8  # queries for each normal
_TURNS = 20  # at most, until there are as many points as were asked for


def denser(slopes: Slopes, drawn: Callable[[Key, int], Array], count: int) -> tuple[Array, Array]:
    """Return points that were pulled to the surface, (count, 3) at most, and their normals.

    Args:
      slopes: of the field.
      drawn: queries (n, 3) of a key.
    """
    points, normals, have = [np.empty((0, 3), np.float32)], [np.empty((0, 3), np.float32)], 0
    for turn in range(_TURNS * -(-count // _AT_ONCE)):
        if have >= count:
            break
        queries = drawn(Key(0, turn), _AT_ONCE)
        distance, slope = slopes(queries)
        unit = unit_of(slope).vectors
        near = distance < _FAR
        points.append((queries - distance[:, None] * unit)[near])
        normals.append(unit[near])
        have += int(near.sum())
    return np.concatenate(points)[:count], np.concatenate(normals)[:count]


def normals_of(slopes: Slopes, points: Array, spread: Array) -> Array:
    """Return unit normals of points (n, 3), of no sign.

    Args:
      spread: how far around each point slopes are asked for, (n,).
    """
    tables = np.zeros((len(points), 3, 3), np.float32)
    for number in range(_AROUND):
        noise = Key(0, number).generator("normals").standard_normal(points.shape, np.float32)
        queries = points + spread[:, None] * noise
        for start in range(0, len(points), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            unit = unit_of(slopes(queries[some])[1]).vectors
            tables[some] += unit[:, :, None] * unit[:, None]
    _, axes = np.linalg.eigh(tables)
    found: Array = np.ascontiguousarray(axes[:, :, -1])
    return found
