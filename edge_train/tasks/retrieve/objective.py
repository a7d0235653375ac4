"""Find the passage that answers a query: batches in epochs, negatives drawn by key."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key
from edge_train.tasks.retrieve.questions import Questions

_MOST_TIMES = 32  # that a query is asked in an epoch
_EVALUATION = Key(0, -2)  # the same evaluation batch in every run: curves can be compared


@dataclass(frozen=True)
class FindPassage:
    """Cross-entropy of the right passage among those of a batch.

    Every epoch asks every title once, in an order of its own, and every query that came with the
    documents so often that they are half of all: there are few of them, and they are what people
    ask. Its right passage is drawn among
    those of its right documents, its negatives among the passages that BM25 takes for right; where
    these are too few, among all.

    Args:
      dev: its first queries in a fixed random order are the evaluation batch.
      passages: how many there are.
      samples: queries in a batch.
      negatives: passages of a query beside the right one.
    """

    train: Questions
    dev: Questions
    passages: int
    samples: int
    negatives: int
    evaluation_samples: int

    def batch(self, key: Key) -> Batch:
        """Return the queries of one step with their passages."""
        places = key.step * self.samples + np.arange(self.samples)
        every = self._every
        epochs, rows = np.divmod(places, len(every))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order = Key(key.seed, int(epoch)).generator("epoch").permutation(every)
            rows[here] = order[rows[here]]
        return self._batch(self.train, rows, key.generator("passages"))

    @cached_property
    def _every(self) -> NDArray[np.int64]:
        """The queries of an epoch, some more than once."""
        given, titles = (np.flatnonzero(self.train.bare == bare) for bare in (False, True))
        times = min(max(len(titles) // max(len(given), 1), 1), _MOST_TIMES)
        return np.concatenate([np.tile(given, times), titles])

    def evaluation(self) -> Batch:
        """Return the fixed evaluation batch."""
        draw = _EVALUATION.generator("evaluation")
        rows = draw.permutation(len(self.dev))[: self.evaluation_samples]
        return self._batch(self.dev, rows, draw)

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, samples)."""
        return runtime.forward(batch, points)

    def _batch(self, part: Questions, rows: NDArray[np.int64], draw: np.random.Generator) -> Batch:
        chosen = np.empty((len(rows), 1 + self.negatives), np.int64)
        for place, row in enumerate(rows):
            answers = part.answers[row][part.answers[row] >= 0]
            chosen[place, 0] = draw.choice(answers)
            mined = part.mined[row][part.mined[row] >= 0]
            some = draw.permutation(mined)[: self.negatives]
            more = draw.integers(self.passages, size=self.negatives - len(some))
            chosen[place, 1:] = np.concatenate([some, more])
        return {
            "query": part.query[rows],
            "bare": part.bare[rows],
            "passages": chosen,
            "right": part.right[rows],
        }
