"""A mesh of an unsigned field, with the borders that the surface has; loops of a mesh's borders.

No sign tells the sides of an open surface, so marching cubes has nothing to march on. Two
neighboring nodes of a grid are on two sides where their slopes point away from each other and both
are near. Each such edge gets a quad between the four cells around it, whose corners lie in the
middle of the crossings of their cells (surface nets). A border is where no edge is crossed.

Source: surface nets (Gibson 1998); slopes as signs as in CAP-UDF (arXiv:2210.02757) and MeshUDF
(arXiv:2111.14549), which vote in each cell and then march cubes. No package with a release handles
unsigned fields; marching cubes at a small distance makes two closed sheets of every open one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

_NEAR_CELLS = 2  # from a cell with points on: the grid is empty elsewhere
_REACH = 1.5  # sides of a cell that the distances of two nodes add up to at most
_AT_ONCE = 8192  # nodes of a pass
Slopes = Callable[[Array], tuple[Array, Array]]


def mesh_of(
    slopes: Slopes, points: Array, cells: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return corners (n, 3) and triangles (m, 3) of the surface near some points.

    Args:
      slopes: distances (n,) and slopes (n, 3) of points (n, 3).
      points: on the surface; nothing is searched far from them.
      cells: of the grid along the longest side of their box.

    Memory:
      A byte for each node of the grid, and 60 for each that is near the points.
    """
    low = points.min(axis=0).astype(np.float64)
    side = float((points.max(axis=0) - low).max()) / cells
    margin = _NEAR_CELLS + 1
    low -= margin * side
    counts = np.ceil((points.max(axis=0) - low) / side).astype(np.int64) + margin + 1
    wanted = _near(points, low, side, counts)
    numbers = np.full(counts, -1, np.int64)
    places = np.argwhere(wanted)
    numbers[wanted] = np.arange(len(places))
    distances, directions = np.empty(len(places)), np.empty((len(places), 3))
    for start in range(0, len(places), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        at = (low + side * places[some]).astype(np.float32)
        distances[some], directions[some] = slopes(at)
    return _nets(places, numbers, distances, directions, low, side)


def _near(
    points: Array, low: NDArray[np.float64], side: float, counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which nodes of the grid are near a point."""
    wanted = np.zeros(counts, np.bool_)
    cells = np.unique(np.floor((points - low) / side).astype(np.int64), axis=0)
    wanted[tuple(cells.T)] = True
    for axis in range(3):
        spread = np.moveaxis(wanted, axis, 0).copy()
        for shift in range(1, _NEAR_CELLS + 2):
            moved = np.moveaxis(wanted, axis, 0)
            spread[shift:] |= moved[:-shift]
            if shift <= _NEAR_CELLS:
                spread[:-shift] |= moved[shift:]
        wanted = np.moveaxis(spread, 0, axis)
    return np.ascontiguousarray(wanted)


def _nets(
    places: NDArray[np.int64],
    numbers: NDArray[np.int64],
    distances: NDArray[np.float64],
    directions: NDArray[np.float64],
    low: NDArray[np.float64],
    side: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums: list[NDArray[np.float64]] = []
    owners: list[NDArray[np.int64]] = []
    quads: list[NDArray[np.int64]] = []
    for axis in range(3):
        step = np.eye(3, dtype=np.int64)[axis]
        first = np.flatnonzero(places[:, axis] + 1 < numbers.shape[axis])
        second = numbers[tuple((places[first] + step).T)]
        first, second = first[second >= 0], second[second >= 0]
        apart = (directions[first] * directions[second]).sum(axis=1) < 0
        close = distances[first] + distances[second] < _REACH * side
        first, second = first[apart & close], second[apart & close]
        total = np.maximum(distances[first] + distances[second], 1e-30)
        crossing = places[first] + step * (distances[first] / total)[:, None]
        across, along = np.eye(3, dtype=np.int64)[[(axis + 1) % 3, (axis + 2) % 3]]
        around = [places[first] - shift for shift in (0 * across, across, across + along, along)]
        cells = np.stack([_number(cell, numbers.shape) for cell in around], axis=1)
        inner = (np.stack(around, axis=1) >= 0).all(axis=(1, 2))
        quads.append(cells[inner])
        owners.append(cells[inner].ravel())
        sums.append(np.repeat(crossing[inner], 4, axis=0))
    names, which = np.unique(np.concatenate(owners), return_inverse=True)
    corners = np.zeros((len(names), 3))
    np.add.at(corners, which, np.concatenate(sums))
    corners /= np.bincount(which, minlength=len(names))[:, None]
    found = which.reshape(-1, 4)
    triangles = np.concatenate([found[:, [0, 1, 2]], found[:, [0, 2, 3]]])
    return low + side * corners, turned_alike(triangles)


def _number(cells: NDArray[np.int64], counts: tuple[int, ...]) -> NDArray[np.int64]:
    return (cells[:, 0] * counts[1] + cells[:, 1]) * counts[2] + cells[:, 2]


def edges_of(triangles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges of triangles, (edges, 2), and of how many triangles each is."""
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    pairs.sort(axis=1)
    edges, counts = np.unique(pairs, axis=0, return_counts=True)
    return edges, counts


def border_loops(triangles: NDArray[np.int64]) -> tuple[int, int]:
    """Return in how many pieces the border of a mesh is, and its edges.

    >>> border_loops(np.array([[0, 1, 2], [0, 2, 3], [7, 8, 9]]))
    (2, 7)
    """
    if not len(triangles):
        return 0, 0
    edges, counts = edges_of(triangles)
    border = edges[counts == 1]
    parent = {corner: corner for corner in border.ravel().tolist()}

    def root(corner: int) -> int:
        while parent[corner] != corner:
            parent[corner] = parent[parent[corner]]
            corner = parent[corner]
        return corner

    for a, b in border.tolist():
        parent[root(a)] = root(b)
    return len({root(corner) for corner in parent}), len(border)


def turned_alike(triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return triangles turned so that neighbors face the same side, where there is one.

    An unsigned field has no outside: each piece is turned as its first triangle, and one that has
    only one side, or more than two triangles at an edge, is turned alike as far as it goes.
    """
    found = triangles.copy()
    sides: dict[tuple[int, int], list[int]] = {}
    for number, (a, b, c) in enumerate(triangles.tolist()):
        for one, other in ((a, b), (b, c), (c, a)):
            sides.setdefault((min(one, other), max(one, other)), []).append(number)
    rows, seen = triangles.tolist(), np.zeros(len(triangles), np.bool_)
    for first in range(len(rows)):
        if seen[first]:
            continue
        seen[first], waiting = True, [first]
        while waiting:
            a, b, c = rows[waiting.pop()]
            for one, other in ((a, b), (b, c), (c, a)):
                shared = sides[min(one, other), max(one, other)]
                for number in shared if len(shared) == 2 else ():
                    if seen[number]:
                        continue
                    seen[number] = True
                    d, e, f = rows[number]
                    if (one, other) in ((d, e), (e, f), (f, d)):
                        rows[number] = [d, f, e]
                    waiting.append(number)
    found[:] = rows
    return found
