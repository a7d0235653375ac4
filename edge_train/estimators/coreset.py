"""Which of some candidates stand for all of them: small sources whole, of others the medoids."""

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

Numbers = NDArray[np.int64]


def facility_location(distances: Array, count: int) -> Numbers:
    """Return the candidates that are closest to all, taken greedily, in the order they were taken.

    With similarities s = max(distances) - distances, each candidate taken adds the most to
    sum_i max_j s[i, j], j over those that were taken: at least 1 - 1/e of what the best set has
    (Nemhauser, Wolsey and Fisher 1978). Of equal ones the first is taken.

    Args:
      distances: (candidates, candidates), symmetric.
      count: how many to take; all if there are fewer.

    Memory: two more matrices of that size.

    >>> at = np.array([0.0, 0.1, 0.2, 5.0, 5.1], np.float32)
    >>> facility_location(np.abs(at[:, None] - at), 2).tolist()
    [2, 3]
    """
    similarities = distances.max(initial=0.0) - distances
    nearest = np.zeros(len(distances), np.float64)
    left = np.ones(len(distances), bool)
    taken = np.empty(min(count, len(distances)), np.int64)
    for place in range(len(taken)):
        reached = np.maximum(similarities, nearest[:, None]).sum(axis=0, dtype=np.float64)
        taken[place] = np.where(left, reached, -np.inf).argmax()
        left[taken[place]] = False
        nearest = np.maximum(nearest, similarities[:, taken[place]])
    return taken


def is_small(sizes: Numbers, count: int, candidates: int) -> NDArray[np.bool_]:
    """Return which sources are small: whose candidates fit into an equal part of the batch.

    Of a source with share p of the samples, p times `candidates` are expected. Small ones together
    then never fill the batch on average. A single source is not small.

    Source: CoLM (arXiv:2407.19580) keeps small sources whole; its code names them by hand.

    >>> is_small(np.array([700, 250, 50]), count=8, candidates=32).tolist()
    [False, False, True]
    """
    sources = int(np.count_nonzero(sizes))
    if sources < 2:
        return np.zeros(len(sizes), bool)
    small: NDArray[np.bool_] = sizes * (candidates * sources) <= sizes.sum() * count
    return small


def budgets(found: Numbers, count: int) -> Numbers:
    """Return how many samples of each source are taken, in proportion to how many there are.

    What rounding down leaves goes to the largest remainders, of equal ones to the first.

    Args:
      found: candidates of each source; at least `count` in all.

    >>> budgets(np.array([20, 9, 0]), 7).tolist()
    [5, 2, 0]
    """
    total = max(int(found.sum()), 1)
    shares = found * count // total
    remainders = found * count - shares * total
    shares[np.argsort(-remainders, kind="stable")[: count - int(shares.sum())]] += 1
    return shares
