"""Every passage scored for some queries, exactly: what runs and indexes are judged by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import Folded
from edge_train.arrays.types import Array
from edge_train.runtimes.numpy.late_interaction import LateInteraction

_TOKENS_AT_ONCE = 2048  # of passages
_QUERIES_AT_ONCE = 32


def scores_of(
    runtime: LateInteraction,
    head: Folded,
    queries: NDArray[np.int64],
    passages: int,
    *,
    bare: bool = False,
) -> Array:
    """Return the score of every passage for every query, (queries, passages).

    Args:
      queries: numbers of texts.
      bare: passages are compared without their titles.

    Memory: the result, and products of a few passages' tokens with those of a few queries.
    """
    found = np.empty((len(queries), passages), np.float32)
    some = [
        (
            slice(start, start + _QUERIES_AT_ONCE),
            runtime.queries(queries[start:][:_QUERIES_AT_ONCE], head),
        )
        for start in range(0, len(queries), _QUERIES_AT_ONCE)
    ]
    for first, last in runtime.runs(passages, _TOKENS_AT_ONCE):
        tokens = runtime.passages(first, last, head, bare=bare)
        for at, few in some:
            products = few.values @ tokens.values.T
            best = np.maximum.reduceat(products, tokens.starts[:-1], axis=1)
            found[at, first:last] = np.add.reduceat(best, few.starts[:-1], axis=0)
    return found


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing."""
    return float(np.mean(values)) if values else 0.0
