"""Scores of classes and of numbers that were predicted, as scikit-learn and SciPy define them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]


def macro_f1(table: NDArray[np.int64]) -> float:
    """Return the mean over classes of 2 * hits / (texts of the class + texts taken for it).

    Classes that are neither there nor found are left out.

    Args:
      table: (classes, classes), how often each class (row) was taken for which (column).

    >>> round(macro_f1(np.array([[1, 1], [0, 2]])), 4)
    0.7333
    """
    hits = np.diag(table).astype(np.float64)
    both = (table.sum(axis=0) + table.sum(axis=1)).astype(np.float64)
    there = both > 0
    return float(np.mean(2 * hits[there] / both[there])) if there.any() else 0.0


def matthews(table: NDArray[np.int64]) -> float:
    """Return Matthews' correlation of classes and what they were taken for; 0 if one is constant.

    Source: Gorodkin (2004), the multi-class R_K; of two classes it is phi.

    >>> round(matthews(np.array([[1, 1], [0, 2]])), 4)
    0.5774
    """
    true, found = (table.sum(axis=axis).astype(np.float64) for axis in (1, 0))
    total = true.sum()
    product = float(np.trace(table)) * total - true @ found
    size = np.sqrt((total**2 - found @ found) * (total**2 - true @ true))
    return float(product / size) if size > 0 else 0.0


def pearson(one: Numbers, other: Numbers) -> float:
    """Return the correlation of two lists of numbers; 0 if one is constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])), 4)
    0.982
    """
    first, second = (x.astype(np.float64) - x.astype(np.float64).mean() for x in (one, other))
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0 else 0.0


def spearman(one: Numbers, other: Numbers) -> float:
    """Return the correlation of ranks; equal numbers share the mean of their ranks.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 40.0]))
    1.0
    """
    return pearson(_ranks(one), _ranks(other))


def _ranks(values: Numbers) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[places]
    return ranks
