"""The task of telling classes apart: batches in epochs, held-out samples, accuracy per class."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key
from edge_train.tasks.mistakes import Mistake, merged, worst
from edge_train.tasks.network.datasets import Samples
from edge_train.tasks.scores import macro_f1, matthews

Prepare = Callable[[NDArray[Any]], Array]  # from stored numbers to what the network reads


class Labeled:
    """Cross entropy over labeled samples.

    Every epoch visits the training samples once in an order of its own; what does not fill a batch
    waits for the next epoch's draw. The evaluation batch is cut from the training samples, so that
    test samples decide nothing.

    Args:
      samples: stored as they were read; a batch is prepared when it is drawn.
      prepare: makes float32 inputs of stored ones.
      seed: of the run; the order of an epoch is a function of it.
      batch_size: samples per step.
      evaluation_samples: how many are held out.
      smoothing: share of a target that all classes get; of training only, as are
      weights: (classes,), what samples of each class count; None: 1.
    """

    def __init__(
        self,
        samples: Samples,
        prepare: Prepare,
        seed: int,
        batch_size: int,
        evaluation_samples: int,
        smoothing: float = 0.0,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self._smoothing, self._weights = smoothing, weights
        self._samples = samples
        self._prepare = prepare
        self._batch_size = batch_size
        held_out = Key(0, 0).generator("held out").permutation(len(samples.labels))
        self._held_out = np.sort(held_out[:evaluation_samples])
        self._numbers = np.sort(held_out[evaluation_samples:])
        self._order = lru_cache(maxsize=1)(lambda epoch: self._ordered(seed, epoch))

    @property
    def count(self) -> int:
        """Samples to train on."""
        return len(self._numbers)

    def inputs(self, numbers: NDArray[Any]) -> Array:
        """Return prepared training inputs by their place among the samples to train on."""
        return self._prepare(self._samples.inputs[self._numbers[numbers]])

    def batch(self, key: Key) -> Batch:
        """Return `inputs`, `labels` and `index`, the places of the samples."""
        size = min(self._batch_size, self.count)
        epoch, part = divmod(key.step, self.count // size)
        index = self._order(epoch)[part * size : (part + 1) * size]
        labels = self._samples.labels[self._numbers[index]]
        batch: dict[str, Any] = {"inputs": self.inputs(index), "labels": labels, "index": index}
        if self._smoothing:
            batch["smoothing"] = np.full(size, self._smoothing, np.float32)
        if self._weights is not None:
            batch["weights"] = self._weights[labels]
        return batch

    def evaluation(self) -> Batch:
        """Return the held-out samples as they are stored; `loss` prepares a few at a time."""
        return {
            "stored": self._samples.inputs[self._held_out],
            "labels": self._samples.labels[self._held_out],
        }

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return cross entropies (points, samples)."""
        if "inputs" in batch:
            return runtime.forward(batch, points)
        parts = []
        for start in range(0, len(batch["labels"]), self._batch_size):
            some = slice(start, start + self._batch_size)
            inputs = self._prepare(batch["stored"][some])
            part = {"inputs": inputs, "labels": batch["labels"][some]}
            parts.append(runtime.forward(part, points))
        return np.concatenate(parts, axis=1)

    def _ordered(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return Key(seed, epoch).generator("epoch").permutation(self.count)


def judged(
    samples: Samples, logits: Callable[[NDArray[Any]], Array], classes: int, together: int
) -> tuple[NDArray[np.int64], list[Mistake]]:
    """Return how often each class (row) was taken for which (column), and the worst mistakes.

    Args:
      logits: from stored inputs.
      together: samples that are judged at once.
    """
    table, mistakes = np.zeros((classes, classes), np.int64), list[Mistake]()
    for start in range(0, len(samples.labels), together):
        labels = samples.labels[start : start + together]
        found = logits(samples.inputs[start : start + together])
        np.add.at(table, (labels, found.argmax(axis=1)), 1)
        mistakes = merged(mistakes, worst(labels, found, first_row=start))
    return table, mistakes


def scores(table: NDArray[np.int64], class_names: Sequence[str]) -> Mapping[str, Any]:
    """Return the metrics of a confusion table.

    >>> scores(np.array([[3, 1], [0, 4]]), ("cat", "dog"))["test_accuracy"]
    0.875
    """
    return {
        "test_accuracy": float(np.trace(table) / table.sum()),
        "test_samples": int(table.sum()),
        "class_names": list(class_names),
        "macro_f1": macro_f1(table),
        "matthews": matthews(table),
        "confusion": table.tolist(),
    }
