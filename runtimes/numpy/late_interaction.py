"""Late interaction over stored token vectors: the head alone is computed and differentiated.

A query's score for a passage is sum_i max_j <q_i, d_j> over its tokens i and the passage's tokens
j, both of length 1. Only the token that wins a maximum gets a gradient, so the backward pass
computes again the winners and nothing else, a few at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.projections import Folded, folded, gradient, project, unfolded
from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Apply
from edge_train.runtimes.token_vectors import TokenVectors

_TOKENS_AT_ONCE = 1024  # that are projected or differentiated; bounds what is held
_LEAST_LENGTH = np.float32(1e-12)


@dataclass(frozen=True)
class Embedded:
    """Tokens of some texts, projected and of length 1.

    Attributes:
      rows: (tokens,), which tokens of all they are.
      starts: (texts + 1,), where each text begins.
      values: (tokens, outputs).
      lengths: (tokens,), before they were made 1.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    values: Array
    lengths: Array


class LateInteraction:
    """A projection on top of a frozen encoder's stored vectors; a `GradientRuntime`.

    Texts are passages first, then titles and queries. A passage is compared with the tokens of its
    title, too, unless the query is a title itself (`bare`).

    A batch has `query` (samples,), `bare` (samples,), `passages` (samples, 1 + negatives), the
    right one first, and `right` (samples, any), every document that answers the query, filled up
    with -1. Each query is compared with all passages of the batch; other right ones are left out.
    A sample's loss is the cross-entropy of its right passage at scores / `temperature`.

    Args:
      owners: (passages,), the document of each.
      titles: (passages,), the text that is its title; -1: it has none.

    Memory: the projections of a batch's tokens, a query's products with one passage, and what the
    head keeps of `_TOKENS_AT_ONCE` tokens.
    """

    device = "cpu"
    dtype = "float32"
    pages = None  # the vectors let go of theirs themselves

    def __init__(
        self,
        vectors: TokenVectors,
        owners: NDArray[np.int32],
        titles: NDArray[np.int64],
        start: Mapping[str, Array],
        *,
        kind: str,
        activation: str,
        temperature: float,
    ) -> None:
        self.parameters = Parameters(dict(start))
        self.batch_limit: int | None = None  # times 64 tokens; None: `_TOKENS_AT_ONCE`
        self._vectors = vectors
        self._owners, self._titles = owners, titles
        self.kind, self.activation = kind, activation
        self._temperature = np.float32(temperature)

    def head(self, point: Point) -> Folded:
        """Return the projection at a point."""
        return folded(self.kind, self.activation, point)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, samples)."""
        found = []
        for point in points:
            scores = self._scores(batch, self.head(point))[0]
            found.append(self._losses(batch, scores)[0])
        return np.stack(found)

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the mean loss; return losses (samples,)."""
        head = self.head(self.parameters)
        scores, queries, passages, winners = self._scores(batch, head)
        losses, slopes = self._losses(batch, scores)
        if not np.isfinite(losses).all():
            return losses
        slopes /= np.float32(len(losses))
        by_query = np.zeros_like(queries.values)
        by_passage = np.zeros_like(passages.values)
        tokens = np.arange(len(queries.values))
        of_query = np.repeat(np.arange(len(losses)), np.diff(queries.starts))
        for number in range(len(passages.starts) - 1):
            at = slice(*passages.starts[number : number + 2])
            routed = np.zeros((len(tokens), at.stop - at.start), np.float32)
            routed[tokens, winners[:, number]] = slopes[of_query, number]
            by_query += routed @ passages.values[at]
            by_passage[at] = routed.T @ queries.values
        nothing = np.zeros((1, self._vectors.width), np.float32)
        total = gradient(head, nothing, np.zeros((1, by_query.shape[1]), np.float32))
        for some, error in ((queries, by_query), (passages, by_passage)):
            total = self._add_gradient(head, some, error, total)
        values = dict(self.parameters.items())
        for name, found in unfolded(self.kind, self.activation, values, total).items():
            apply(name, found)
        return losses

    def queries(self, texts: NDArray[np.int64], head: Folded) -> Embedded:
        """Return the projected tokens of some texts."""
        return self._embedded([self._rows(text) for text in texts], head)

    def passages(self, first: int, last: int, head: Folded, *, bare: bool = False) -> Embedded:
        """Return the projected tokens of neighbouring passages, with their titles unless `bare`."""
        of = self._rows if bare else self._with_title
        return self._embedded([of(n) for n in range(first, last)], head)

    def runs(self, passages: int, tokens: int) -> Iterator[tuple[int, int]]:
        """Yield neighbouring passages, first and behind the last, of about so many tokens."""
        return self._vectors.runs(0, passages, tokens)

    def counts(self, passages: int) -> NDArray[np.int64]:
        """Return how many tokens each passage has, its title's included."""
        each = np.diff(self._vectors.starts)
        titles = self._titles[:passages]
        return each[:passages] + np.where(titles < 0, 0, each[titles])

    def _rows(self, text: int) -> NDArray[np.int64]:
        return np.arange(*self._vectors.starts[text : text + 2], dtype=np.int64)

    def _with_title(self, passage: int) -> NDArray[np.int64]:
        title = int(self._titles[passage])
        own = self._rows(passage)
        return own if title < 0 else np.concatenate([own, self._rows(title)])

    def _embedded(self, ranges: Sequence[NDArray[np.int64]], head: Folded) -> Embedded:
        rows = np.concatenate(ranges)
        starts = np.concatenate([[0], np.cumsum([len(one) for one in ranges])])
        parts = [project(head, self._vectors.tokens(some)) for some in self._few(rows)]
        values = np.concatenate(parts)
        lengths = np.maximum(np.linalg.norm(values, axis=1), _LEAST_LENGTH)
        values /= lengths[:, None]
        return Embedded(rows, starts.astype(np.int64), values, lengths)

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing: arrays go when nobody holds them."""

    def _few(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        size = min(_TOKENS_AT_ONCE, 64 * (self.batch_limit or _TOKENS_AT_ONCE))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _scores(
        self, batch: Batch, head: Folded
    ) -> tuple[Array, Embedded, Embedded, NDArray[np.int64]]:
        """Return scores (samples, passages), what was compared, and each query token's winners."""
        queries = self.queries(batch["query"], head)
        ranges = [
            self._rows(key // 2) if key % 2 else self._with_title(key // 2)
            for key in np.unique(_keys(batch)).tolist()
        ]
        passages = self._embedded(ranges, head)
        count = len(passages.starts) - 1
        best = np.empty((len(queries.values), count), np.float32)
        winners = np.empty(best.shape, np.int64)
        for number in range(count):
            at = slice(*passages.starts[number : number + 2])
            products = queries.values @ passages.values[at].T
            winners[:, number] = products.argmax(axis=1)
            best[:, number] = products.max(axis=1)
        scores = np.add.reduceat(best, queries.starts[:-1], axis=0)
        return scores, queries, passages, winners

    def _losses(self, batch: Batch, scores: Array) -> tuple[Array, Array]:
        """Return losses (samples,) and their slopes at the scores (samples, passages)."""
        keys = _keys(batch)
        there = np.unique(keys)
        own = np.searchsorted(there, keys[:, 0])
        samples = np.arange(len(own))
        documents = self._owners[there // 2]
        left_out = (documents[None, :, None] == batch["right"][:, None, :]).any(axis=2)
        left_out[samples, own] = False
        logits = np.where(left_out, -np.inf, scores / self._temperature)
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        sums = shares.sum(axis=1)
        losses = np.log(sums) - logits[samples, own]
        shares /= sums[:, None]
        shares[samples, own] -= 1
        shares /= self._temperature
        return losses.astype(np.float32), shares.astype(np.float32)

    def _add_gradient(self, head: Folded, some: Embedded, error: Array, total: Folded) -> Folded:
        """Return `total` with the gradient of all tokens that won anything added.

        Args:
          error: (tokens, outputs), at their vectors of length 1.
        """
        won = np.flatnonzero(error.any(axis=1))
        size = len(self._few(some.rows)[0])
        for start in range(0, len(won), size):
            at = won[start : start + size]
            unit = some.values[at]
            slope = error[at]
            slope -= unit * (slope * unit).sum(axis=1, keepdims=True)
            slope /= some.lengths[at, None]
            total = _sum(total, gradient(head, self._vectors.tokens(some.rows[at]), slope))
        return total


def _keys(batch: Batch) -> NDArray[np.int64]:
    """Return a number for each passage of a batch: twice its own, and 1 without its title."""
    keys: NDArray[np.int64] = 2 * batch["passages"] + batch["bare"][:, None]
    return keys


def _sum(one: Folded, other: Folded) -> Folded:
    def added(first: Array | None, second: Array | None) -> Array | None:
        return None if first is None or second is None else np.add(first, second, out=first)

    return Folded(
        one.activation,
        added(one.direct, other.direct),
        added(one.up, other.up),
        added(one.gate, other.gate),
        added(one.out, other.out),
    )
