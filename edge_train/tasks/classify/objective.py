"""Tell classes of texts apart: batches of token ids in an order that covers every example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key, sample_seeds

_EVALUATION = Key(0, -2)  # the same evaluation batch in every run: curves can be compared


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as ids (texts, length) int32, padded; ids per text (texts,), labels (texts,).

    `types`, (texts, length) int8, is there for pairs and a model that wants to know which of the
    two texts an id belongs to.
    A label is the number of a class, int32; for regression it is the number itself, float32.
    `sources`, (texts,) int64, says which source a text is of, where they are told apart.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]
    labels: NDArray[Any]
    types: NDArray[np.int8] | None = None
    sources: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return some texts as model inputs, int64.

        These are ids and mask (rows, length), labels (rows,) and, where there are any, types.
        Labels that are numbers stay float32: that is how a runtime tells them from classes.
        """
        length, labels = self.ids.shape[1], self.labels[rows]
        types = {} if self.types is None else {"types": self.types[rows].astype(np.int64)}
        return {
            **types,
            "ids": self.ids[rows].astype(np.int64),
            "mask": (np.arange(length) < self.counts[rows, None]).astype(np.int64),
            "labels": labels if labels.dtype.kind == "f" else labels.astype(np.int64),
        }

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """Return plain arrays to store; `from_tensors` reads them back."""
        types = {} if self.types is None else {f"{name}/types": self.types}
        sources = {} if self.sources is None else {f"{name}/sources": self.sources}
        return {
            **types,
            **sources,
            f"{name}/ids": self.ids,
            f"{name}/counts": self.counts,
            f"{name}/labels": self.labels,
        }

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, NDArray[Any]]) -> "TokenizedTexts":
        """Return the texts that `tensors` stored under a name."""
        ids, counts, labels = (tensors[f"{name}/{part}"] for part in ("ids", "counts", "labels"))
        others = (tensors.get(f"{name}/{part}") for part in ("types", "sources"))
        return cls(ids, counts, labels, *others)


@dataclass(frozen=True)
class ClassifyText:
    """Cross-entropy of a classifier on labeled texts.

    A batch holds `source` (samples,) where sources are told apart; see `HasSources`.
    Every epoch shows every text once, in an order of its own; a batch may hold the end of one epoch
    and the start of the next.

    Args:
      train: what batches are drawn from.
      dev: its first texts in a fixed random order are the evaluation batch.
      samples: texts in a batch.
      evaluation_samples: at most this many in the evaluation batch.
      smoothing: share of a target that all classes get; of training only, as are
      weights: (classes,), what texts of each class count; None: 1.
      dropout: whether a batch of training says how dropout is drawn.
    """

    train: TokenizedTexts
    dev: TokenizedTexts
    samples: int
    evaluation_samples: int
    smoothing: float = 0.0
    weights: NDArray[np.float32] | None = None
    dropout: bool = False

    def batch(self, key: Key) -> Batch:
        """Return the texts of one step."""
        places = key.step * self.samples + np.arange(self.samples)
        epochs, rows = np.divmod(places, len(self.train))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order = Key(key.seed, int(epoch)).generator("epoch").permutation(len(self.train))
            rows[here] = order[rows[here]]
        batch = dict(self.train.batch(rows))
        if self.smoothing:
            batch["smoothing"] = np.full(self.samples, self.smoothing, np.float32)
        if self.weights is not None:
            batch["weights"] = self.weights[batch["labels"]]
        if self.dropout:
            batch["dropout"] = sample_seeds(key, "dropout", self.samples)
        if self.train.sources is not None:
            batch["source"] = self.train.sources[rows]
        return batch

    @property
    def source_sizes(self) -> NDArray[np.int64]:
        """Texts of each source; see `HasSources`."""
        sources = self.train.sources
        return np.array([len(self.train)]) if sources is None else np.bincount(sources)

    def evaluation(self) -> Batch:
        """Return the fixed evaluation batch."""
        order = _EVALUATION.generator("evaluation").permutation(len(self.dev))
        return self.dev.batch(order[: self.evaluation_samples])

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses, (points, samples): cross-entropies, or squared errors of numbers."""
        return runtime.forward(batch, points)


def confusion(labels: NDArray[Any], found: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return how often each label (row) was taken for each class (column), (classes, classes).

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, found), 1)
    return counts
