"""Sequences of several points in one call: a frozen base is read once for all of them."""

from collections.abc import Iterator

import numpy as np

from edge_train.arrays.types import Batch


def calls(points: int, sequences: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Yield which points and which sequences each call is of.

    A call takes several points with all their sequences where those are at most `limit`, else a
    part of the sequences of one.

    >>> [(p.start, p.stop, s.start, s.stop) for p, s in calls(5, 2, 4)]
    [(0, 2, 0, 2), (2, 4, 0, 2), (4, 5, 0, 2)]
    >>> [(p.start, p.stop, s.start, s.stop) for p, s in calls(1, 5, 4)]
    [(0, 1, 0, 4), (0, 1, 4, 5)]
    """
    together = max(1, limit // max(sequences, 1))
    for first in range(0, points, together):
        for start in range(0, sequences, limit):
            stop = min(start + limit, sequences)
            yield slice(first, min(first + together, points)), slice(start, stop)


def beside(batch: Batch, at: slice, points: int) -> Batch:
    """Return some sequences of a batch once for each point, one point behind the other."""
    part = {name: values[at] for name, values in batch.items()}
    if points == 1:
        return part
    return {name: np.concatenate([values] * points) for name, values in part.items()}
