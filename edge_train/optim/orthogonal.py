"""Momentum whose singular values are made equal: the moments of SUMO."""

import math
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State

_NOISE = 1e-5  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class OrthogonalMomentum:
    """Sums gradients up with a decay and returns the nearest matrix with orthonormal columns.

    M <- decay M + G; with M = U S V^T, the update is sqrt(rows) U V^T: its numbers have a root mean
    square of 1. Directions of M that are no more than rounding are left out.

    Args:
      decay: of the sum.

    Bytes: 4 per coordinate.

    Source: SUMO (NeurIPS 2025), whose limit of growth we leave out: sqrt(rows) U V^T has the same
    length in every step. An exact SVD, of the triangle that a QR factorization leaves, where Muon
    iterates.
    """

    decay: float = 0.95

    def init(self, param: Array) -> State:
        """Return a sum of zeros."""
        return {"sum": np.zeros(param.shape, np.float32)}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the orthogonal matrix of a sum (rows, columns), no more columns than rows."""
        total = state["sum"]
        total *= np.float32(self.decay)
        total += dense(update)
        return orthogonal(total)

    def rotate(self, state: State, rotation: Array) -> None:
        """Express the sum in another basis; see `low_rank.Moments`."""
        state["sum"][:] = state["sum"] @ rotation.T


def orthogonal(matrix: Array) -> Array:
    """Return sqrt(rows) U V^T of a matrix U S V^T; zeros of zeros.

    >>> (orthogonal(np.array([[3.0, 0.0], [0.0, 0.1]], np.float32)) ** 2).round(3).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    size = np.abs(matrix).max()
    if not size:
        return np.zeros_like(matrix)
    columns, triangle = np.linalg.qr(matrix / size)
    left, values, right = np.linalg.svd(triangle)
    left = left * (values > _NOISE * values[0])
    found: Array = columns @ ((left * np.float32(math.sqrt(len(matrix)))) @ right)
    return found
