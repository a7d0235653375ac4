"""How far two clouds are from each other, and which way to move the points of the second.

A cloud is (points, 3); both have as many. Sorting gives the exact Wasserstein distance of their
projections on a line, so one along many lines is cheap: O(points log points) a line.

Source: sliced and max-sliced Wasserstein distances (arXiv:1801.04376, 1904.05877) with p = 2;
Chamfer distance as in arXiv:1612.00603, squared, the mean of both ways added.
"""

import numpy as np

from edge_train.arrays.nearest import squares
from edge_train.arrays.types import Array

_ASCENTS = 10  # steps to the direction of the max-sliced distance


def chamfer(x: Array, y: Array) -> tuple[float, Array]:
    """Return the Chamfer distance of two clouds, and its gradient for the second, (points, 3).

    Memory:
      points * points distances.
    """
    table = squares(x, y)
    to_y, to_x = table.argmin(axis=1), table.argmin(axis=0)
    ahead, back = y[to_y] - x, y - x[to_x]
    value = np.square(ahead).sum() / len(x) + np.square(back).sum() / len(y)
    gradient: Array = back * np.float32(2 / len(y))
    np.add.at(gradient, to_y, ahead * np.float32(2 / len(x)))
    return float(value), gradient


def sliced(x: Array, y: Array, directions: Array) -> tuple[Array, Array, Array]:
    """Return squared distances along lines and what they change with.

    Args:
      x, y: clouds, (points, 3).
      directions: unit vectors, (lines, 3).

    Returns:
      values: mean squared difference of the sorted projections, (lines,).
      moves: gradient of the mean of `values` for the points of y, (points, 3).
      turns: gradient of each value for its direction, (lines, 3).
    """
    on_x, on_y = directions @ x.T, directions @ y.T  # (lines, points)
    of_x, of_y = on_x.argsort(axis=1), on_y.argsort(axis=1)
    ahead = np.take_along_axis(on_y, of_y, 1) - np.take_along_axis(on_x, of_x, 1)
    values: Array = np.square(ahead).mean(axis=1)
    scale = np.float32(2 / len(x))
    by_point = np.empty_like(ahead)
    np.put_along_axis(by_point, of_y, ahead, 1)
    moves = by_point.T @ directions
    moves *= scale / np.float32(len(directions))
    # difference of the points that are matched, times how far they are apart on the line
    turns = by_point @ y
    np.put_along_axis(by_point, of_x, ahead, 1)
    turns -= by_point @ x
    turns *= scale
    return values, moves, turns


def steepest(x: Array, y: Array, start: Array) -> Array:
    """Return the direction in which two clouds differ most, (1, 3), from a start.

    For matched points the squared distance along a line is a quadratic form of its direction, so
    the normalised gradient is a step of the power method: there is no rate to choose.
    """
    direction = start
    for _ in range(_ASCENTS):
        _, _, turns = sliced(x, y, direction)
        length = np.sqrt(np.square(turns).sum())
        if not length > 0:
            return direction
        direction = turns / length
    return direction


def uniform(draw: np.random.Generator, count: int) -> Array:
    """Return unit vectors of any direction, (count, 3)."""
    found = draw.standard_normal((count, 3), np.float32)
    found /= np.maximum(np.sqrt(np.square(found).sum(axis=1, keepdims=True)), 1e-12)
    return found
