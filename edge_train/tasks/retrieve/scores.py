"""How good a ranking is: nDCG, reciprocal rank and recall of the first ten documents."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.rng import Key

DEPTH = 10


def ndcg(ranked: Sequence[int], right: Mapping[int, float], depth: int = DEPTH) -> float:
    """Return the discounted gain of the first documents as a share of the best that is possible.

    Gains are the judgements themselves, the discount of rank r is log2(r + 1), as trec_eval has it.

    >>> round(ndcg([3, 1, 2], {1: 2.0, 2: 1.0}), 4)
    0.6697
    """
    gains = [right.get(one, 0.0) for one in ranked[:depth]]
    best = sorted(right.values(), reverse=True)[:depth]
    ideal = _discounted(best)
    return _discounted(gains) / ideal if ideal else 0.0


def reciprocal_rank(ranked: Sequence[int], right: Mapping[int, float]) -> float:
    """Return 1 / rank of the first right document among the first ten; 0 where none is there."""
    return next((1 / (at + 1) for at, one in enumerate(ranked[:DEPTH]) if one in right), 0.0)


def recall(ranked: Sequence[int], right: Mapping[int, float]) -> float:
    """Return the share of right documents, at most ten, that are among the first ten."""
    return sum(one in right for one in ranked[:DEPTH]) / max(1, min(len(right), DEPTH))


def ranking(scores: Array, documents: NDArray[np.int32], count: int = DEPTH) -> list[int]:
    """Return the best documents from the scores of their passages; each counts by its best one.

    >>> ranking(np.array([1.0, 3.0, 2.0], np.float32), np.array([0, 1, 1], np.int32))
    [1, 0]
    """
    found: dict[int, None] = {}
    for place in np.argsort(-scores, kind="stable"):
        found.setdefault(int(documents[place]))
        if len(found) == count:
            break
    return list(found)


def interval(
    differences: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of paired differences and the 95 % interval of a bootstrap over queries.

    >>> [round(x, 3) for x in interval([0.1, 0.1, 0.1])]
    [0.1, 0.1, 0.1]
    """
    values = np.asarray(differences, np.float64)
    draw = Key(seed, 0).generator("bootstrap")
    rows = draw.integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[rows].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(at + 2) for at, gain in enumerate(gains))
