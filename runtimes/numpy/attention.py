"""Causal attention of grouped heads, forward and backward, some rows of scores at a time.

Source: the softmax of a row is made again from its logarithm of sums when it is differentiated, as
FlashAttention does (arXiv:2205.14135); we split queries only, and keep each strip of scores whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.runtimes.numpy.workers import Workers

ROWS = 128  # of scores, for each query head of a group


@dataclass(frozen=True, eq=False)
class Sight:
    """Which positions of a sequence a token sees: of its own document, up to itself.

    Attributes:
      documents: (keys,) numbers of documents; None: all are of one.
      window: so many of them, itself among them; None: all.
      before: keys that stand before the first query, from earlier calls.
    """

    documents: NDArray[np.int32] | None = None
    window: int | None = None
    before: int = 0

    def strips(self, queries: int) -> Iterator[tuple[slice, slice, NDArray[np.bool_] | None]]:
        """Yield queries, the keys that any of them sees, and (queries, keys) which; None: all."""
        for start in range(0, queries, ROWS):
            stop = min(start + ROWS, queries)
            rows = np.arange(start, stop)[:, None] + self.before
            columns = np.arange(self.before + stop)
            seen = columns <= rows
            if self.window is not None:
                seen &= columns > rows - self.window
            if self.documents is not None:
                seen &= self.documents[columns] == self.documents[rows]
            first = int(seen.any(axis=0).argmax())
            seen = seen[:, first:]
            yield slice(start, stop), slice(first, None), None if seen.all() else seen


def attend(
    queries: Array,
    keys: Array,
    values: Array,
    sight: Sight,
    scale: float,
    cap: float | None,
    workers: Workers,
) -> tuple[Array, Array]:
    """Return what each query finds, (queries, heads, length), and logarithms of sums of its row.

    Args:
      queries: (queries, heads, length).
      keys, values: (keys, groups, length); the last of them is the last query's own.

    Memory: the scores of 128 queries for the heads of a group, for every thread.
    """
    found = np.empty(queries.shape, np.float32)
    sums = np.empty(queries.shape[:2], np.float32)

    def one(group: int, some: slice) -> None:
        for rows, columns, seen in sight.strips(len(queries)):
            own = _flat(queries[rows, some])
            reach = slice(columns.start, rows.stop + sight.before)
            scores = _scores(own, keys[reach, group], seen, scale, cap)
            most = scores.max(axis=1, keepdims=True)
            scores -= most
            np.exp(scores, out=scores)
            total = scores.sum(axis=1, keepdims=True)
            result = scores @ values[reach, group]
            result /= total
            _put(found[rows, some], result)
            np.log(total, out=total)
            total += most
            _put(sums[rows, some, None], total)

    workers.all(lambda place: one(*place), _groups(queries, keys))
    return found, sums


def attend_backward(
    queries: Array,
    keys: Array,
    values: Array,
    sight: Sight,
    scale: float,
    cap: float | None,
    found: Array,
    sums: Array,
    error: Array,
    workers: Workers,
) -> tuple[Array, Array, Array]:
    """Return the errors at queries, keys and values for the error at what was found.

    Args:
      found, sums: what `attend` returned.

    Memory: the results, and for every thread three times the scores of 128 queries for the heads
    of a group.
    """
    to_queries = np.empty(queries.shape, np.float32)
    to_keys, to_values = np.zeros(keys.shape, np.float32), np.zeros(values.shape, np.float32)
    along = np.einsum("qhi,qhi->qh", error, found)

    def one(group: int, some: slice) -> None:
        for rows, columns, seen in sight.strips(len(queries)):
            own, its_error = _flat(queries[rows, some]), _flat(error[rows, some])
            reach = slice(columns.start, rows.stop + sight.before)
            shares = _scores(own, keys[reach, group], seen, scale, cap)
            bent = None if cap is None else _slope(shares, cap)
            shares -= _flat(sums[rows, some, None])
            np.exp(shares, out=shares)
            to_values[reach, group] += shares.T @ its_error
            slope = its_error @ values[reach, group].T
            slope -= _flat(along[rows, some, None])
            slope *= shares
            slope *= np.float32(scale)
            if bent is not None:
                slope *= bent
            result: Array = np.matmul(slope, keys[reach, group])
            _put(to_queries[rows, some], result)
            to_keys[reach, group] += slope.T @ own

    workers.all(lambda place: one(*place), _groups(queries, keys))
    return to_queries, to_keys, to_values


def _groups(queries: Array, keys: Array) -> Iterator[tuple[int, slice]]:
    each = queries.shape[1] // keys.shape[1]
    for group in range(keys.shape[1]):
        yield group, slice(group * each, (group + 1) * each)


def _flat(part: Array) -> Array:
    """Return (queries, heads, numbers) head below head, (heads * queries, numbers)."""
    return part.swapaxes(0, 1).reshape(-1, part.shape[-1])


def _put(place: Array, values: Array) -> None:
    """Write what `_flat` laid out back to (queries, heads, numbers)."""
    count, heads, numbers = place.shape
    place[...] = values.reshape(heads, count, numbers).swapaxes(0, 1)


def _scores(
    own: Array, keys: Array, seen: NDArray[np.bool_] | None, scale: float, cap: float | None
) -> Array:
    scores: Array = own @ keys.T
    scores *= np.float32(scale)
    if cap is not None:
        scores /= np.float32(cap)
        np.tanh(scores, out=scores)
        scores *= np.float32(cap)
    if seen is not None:
        by_head = scores.reshape(-1, *seen.shape)
        np.copyto(by_head, -np.inf, where=~seen)
    return scores


def _slope(scores: Array, cap: float) -> Array:
    """Return 1 - tanh^2 of capped scores; of those that are not seen any finite number."""
    bent = np.where(np.isfinite(scores), scores, 0)
    bent /= np.float32(cap)
    bent *= bent
    found: Array = np.subtract(1, bent, out=bent)
    return found
