"""Queries around the points of a cloud, and the point that is nearest to each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key

_SPREAD = 0.25  # of the distance to the nth neighbor: how far queries lie from their point
_PUBLISHED = 20_000  # points; in a denser cloud neighbors are nearer, and queries lie farther out


class Queries:
    """An `Objective`: queries are drawn anew in every step.

    The published code draws a million of them once, and searches all points for the nearest. Here
    the nearest is searched among the n neighbors of the point that a query was drawn around: the
    nearest of all where the query is within half the distance to the nth one.

    Args:
      points: (points, 3).
      neighbors: numbers of the nearest points of each, (points, n).
      spread: distance to the farthest of them, (points,).
      samples: queries of a step.
      evaluated: queries of the evaluation.

    Attributes:
      spread: standard deviation of the queries around each point, (points,).
    """

    def __init__(
        self,
        points: Array,
        neighbors: NDArray[np.int32],
        spread: Array,
        samples: int,
        evaluated: int,
    ) -> None:
        self._points, self._neighbors = points, neighbors
        more = max(1.0, (len(points) / _PUBLISHED) ** 0.5)
        self.spread: Array = spread * np.float32(_SPREAD * more)
        self._samples, self._evaluated = samples, evaluated

    def batch(self, key: Key) -> Batch:
        """Return `queries`, the points `near` them, and points of the `surface`: (samples, 3)."""
        return self._drawn(key.generator("batch"), self._samples)

    def evaluation(self) -> Batch:
        """Return other queries of the same cloud, always the same."""
        return self._drawn(Key(0, 0).generator("evaluated"), self._evaluated)

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, queries)."""
        return runtime.forward(batch, points)

    def around(self, key: Key, count: int) -> Array:
        """Return so many queries (count, 3)."""
        found: Array = self._drawn(key.generator("around"), count)["queries"]
        return found

    def _drawn(self, draw: np.random.Generator, count: int) -> Batch:
        around = draw.integers(len(self._points), size=count)
        queries = draw.standard_normal((count, 3), np.float32)
        queries *= self.spread[around][:, None]
        queries += self._points[around]
        near = self._neighbors[around]
        apart = np.square(self._points[near] - queries[:, None]).sum(axis=2)
        chosen = near[np.arange(count), apart.argmin(axis=1)]
        surface = draw.integers(len(self._points), size=count)
        return {
            "queries": queries,
            "near": self._points[chosen],
            "surface": self._points[surface],
        }
