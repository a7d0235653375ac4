"""Where earlier tokens of a model went: directions that later ones are likely to take.

Moves d_j = x_j - x_class(j) have second moments C. Measured by the token's metric H they are
H^(1/2) d_j, whose moments have eigenvectors U and eigenvalues S^2: B = H^(-1/2) U S turns standard
normal numbers into likely moves, those first that change predictions the most.

Source: of our own; E4T (arXiv:2302.12228) learns an encoder of photos for the same purpose.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.export.token_metric import roots

Rows = NDArray[np.float64]


def second_moments(moves: Rows) -> Rows:
    """Return the moments (d, d) of moves (moves, d), drawn toward a multiple of the unit matrix.

    Few moves say too much of the directions that they happen to span. The share of the unit matrix
    is that which leaves the least expected error.

    Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices" (2004). We differ in moments about the start, not about the mean.
    """
    count, width = moves.shape
    found = moves.T @ moves / count
    level = np.trace(found) / width
    distance = np.square(found - level * np.eye(width)).sum()
    lengths = np.square(moves).sum(axis=1)
    error = (np.square(lengths).sum() / count - np.square(found).sum()) / count
    share = min(1.0, float(error / distance)) if distance > 0 else 1.0
    return np.asarray((1 - share) * found + share * level * np.eye(width))


@dataclass(frozen=True)
class Prior:
    """B^T (k, d): row i is the likely move along direction i, its length one deviation."""

    rows: Rows


def prior_of(moves: Rows, matrix: Rows, rank: int) -> Prior:
    """Return the likely moves of the largest effect.

    Args:
      moves: (moves, d), of earlier tokens.
      matrix: H (d, d).
      rank: how many directions, at most d.
    """
    root, inverse = roots(matrix)
    values, vectors = np.linalg.eigh(root @ second_moments(moves) @ root)
    first = slice(None, -rank - 1, -1)
    deviations = np.sqrt(np.maximum(values[first], 0))
    return Prior(deviations[:, None] * (vectors.T[first] @ inverse))


def shares_left_out(moves: Rows, matrix: Rows, groups: NDArray[np.int64], rank: int) -> Rows:
    """Return, for each move, the share of d^T H d inside directions that never saw its group.

    Args:
      groups: a number for each move; those of its own are left out when its directions are made.
    """
    root, _ = roots(matrix)
    whole = moves @ root
    found = np.empty(len(moves))
    for group in np.unique(groups):
        own = groups == group
        _, vectors = np.linalg.eigh(root @ second_moments(moves[~own]) @ root)
        inside = whole[own] @ vectors[:, -rank:]
        found[own] = np.square(inside).sum(axis=1) / np.square(whole[own]).sum(axis=1)
    return found


@dataclass(frozen=True)
class LinearStart:
    """A move that is guessed from photos: `mean_move` + (features - `mean`) `weights` (f, d)."""

    mean: Rows
    mean_move: Rows
    weights: Rows

    def moves(self, features: Rows) -> Rows:
        """Return the moves (things, d) of things with these features (things, f)."""
        return np.asarray(self.mean_move + (features - self.mean) @ self.weights)


def linear_start(moves: Rows, features: Rows, ridge: float = 0.1) -> LinearStart:
    """Return the guess that fits earlier moves best: ridge regression on features of their photos.

    Args:
      moves: (things, d).
      features: (things, f), in one unit: none is scaled here.
      ridge: of the mean square length of the features' rows.

    Source: E4T (arXiv:2302.12228) learns a network for it; this one is linear.
    """
    mean, mean_move = features.mean(axis=0), moves.mean(axis=0)
    own = features - mean
    kernel = own @ own.T
    level = ridge * np.trace(kernel) / len(kernel)
    fitted = np.linalg.solve(kernel + level * np.eye(len(kernel)), moves - mean_move)
    return LinearStart(mean, mean_move, own.T @ fitted)
