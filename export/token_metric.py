"""What a model's predictions feel of a token's numbers: its metric, and how many of them count.

A prediction f (N numbers) moves by J d when the token moves by d, so its mean square moves by
d^T H d with H = E[J^T J] / N over samples (pictures, prompts, timesteps, noise). Draws
g = J^T v / sqrt(N) with v standard normal have E[g g^T] = H: one backward pass each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

_GROUPS = 20  # of a jackknife


@dataclass(frozen=True)
class Metric:
    """H (d, d) from draws, and its eigenvalues, largest first, with eigenvectors as rows (d, d)."""

    matrix: Rows
    values: Rows
    vectors: Rows


def metric_of(draws: Rows) -> Metric:
    """Return the metric from draws g (draws, d)."""
    matrix = draws.T @ draws / len(draws)
    values, vectors = np.linalg.eigh(matrix)
    return Metric(matrix, np.maximum(values[::-1], 0), vectors.T[::-1])


def effective_dimension(draws: Rows) -> tuple[float, float]:
    """Return tr(H)^2 / |H|_F^2 and its standard error, by a jackknife over groups of draws.

    From pairs of different draws alone, whose means have no bias: |g_i|^2 |g_j|^2 is tr(H)^2 on
    average, (g_i g_j)^2 is |H|_F^2. With the matrix of few draws itself, the second is too large.
    """
    products = draws @ draws.T
    squares = np.diag(products).copy()
    np.fill_diagonal(products, 0)
    products **= 2
    group = np.arange(len(draws)) % _GROUPS

    def ratio(kept: NDArray[np.bool_]) -> float:
        own = squares[kept]
        pairs = own.sum() ** 2 - np.square(own).sum()
        return float(pairs / products[np.ix_(kept, kept)].sum())

    without = np.array([ratio(group != number) for number in range(_GROUPS)])
    spread = np.square(without - without.mean()).sum()
    error = float(np.sqrt((_GROUPS - 1) / _GROUPS * spread))
    return ratio(np.ones(len(draws), bool)), error


def share_inside(matrix: Rows, rows: Rows, moves: Rows) -> Rows:
    """Return the share of d^T H d that lies inside the span of rows, for each of some moves.

    Inside is what the nearest point of the span, by H, has of it.

    Args:
      matrix: H (d, d).
      rows: (k, d).
      moves: (moves, d).
    """
    root, _ = roots(matrix)
    basis, _ = np.linalg.qr((rows @ root).T)
    whole = moves @ root
    return np.asarray(np.square(whole @ basis).sum(axis=1) / np.square(whole).sum(axis=1))


def roots(matrix: Rows) -> tuple[Rows, Rows]:
    """Return H^(1/2) and H^(-1/2), which leaves out what H does not feel."""
    values, vectors = np.linalg.eigh(matrix)
    felt = values > values[-1] * 1e-9  # below is rounding
    root = np.sqrt(np.where(felt, values, 0))
    inverse = np.where(felt, 1 / np.where(felt, root, 1), 0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T
