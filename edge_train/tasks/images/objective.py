"""Batches of features: every epoch sees each picture once, in one of its views."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key
from edge_train.tasks.images.features import FeatureFile

TOGETHER = 256  # rows of features that are read at once outside of training


@dataclass(frozen=True)
class Standard:
    """What makes features comparable: their mean is taken off, and one number divides them all.

    Attributes:
      mean: (width,) of the pictures that are trained on.
      scale: root mean square of what is left; for all numbers the same, so that those that vary
        little stay small.
    """

    mean: NDArray[np.float32]
    scale: float

    def __call__(self, features: Array) -> Array:
        """Return features as heads read them, (rows, width)."""
        return (features - self.mean) / np.float32(self.scale)


def standard_of(file: FeatureFile, pictures: NDArray[np.int64]) -> Standard:
    """Return what makes the features of these pictures comparable; few rows are held at once."""
    rows = file.starts[pictures]
    mean = np.zeros(file.width)
    for start in range(0, len(rows), TOGETHER):
        mean += file.rows(rows[start : start + TOGETHER]).sum(axis=0, dtype=np.float64)
    mean /= len(rows)
    square = 0.0
    for start in range(0, len(rows), TOGETHER):
        square += float(np.square(file.rows(rows[start : start + TOGETHER]) - mean).sum())
    return Standard(mean.astype(np.float32), float(np.sqrt(square / (len(rows) * file.width))))


class Pictures:
    """An `Objective`: cross entropy over features in a file.

    Args:
      train: numbers of the pictures that are trained on.
      evaluation: of those that the best step is chosen by.
      seed: of the run; order and views of an epoch are functions of it.
      samples: pictures of a step.
      smoothing: share of a target that all classes get; of training only, as are
      weights: (classes,), what pictures of each class count; None: 1.
      dropout: a picture's input is the mean of its views, each left out with this probability;
        None: one of its views.
      every_view: held-out pictures count with all their views; else as a whole.
    """

    def __init__(
        self,
        file: FeatureFile,
        standard: Standard,
        *,
        train: NDArray[np.int64],
        evaluation: NDArray[np.int64],
        seed: int,
        samples: int,
        smoothing: float = 0.0,
        weights: NDArray[np.float32] | None = None,
        dropout: float | None = None,
        every_view: bool = False,
    ) -> None:
        self._file, self._standard = file, standard
        self._train, self._evaluation = train, evaluation
        self._samples = min(samples, len(train))
        self._smoothing, self._weights, self._dropout = smoothing, weights, dropout
        self._every_view = every_view
        self._epoch = lru_cache(maxsize=1)(lambda epoch: self._rows(Key(seed, epoch)))

    @property
    def count(self) -> int:
        """Pictures to train on."""
        return len(self._train)

    def batch(self, key: Key) -> Batch:
        """Return `inputs` and `labels` of a step, and `index`, the pictures among those."""
        epoch, part = divmod(key.step, self.count // self._samples)
        order, rows = self._epoch(epoch)
        index = order[part * self._samples : (part + 1) * self._samples]
        labels = self._file.labels[self._train[index]]
        batch: dict[str, Any] = {
            "inputs": self._inputs(key, index, rows),
            "labels": labels,
            "index": index,
        }
        if self._smoothing:
            batch["smoothing"] = np.full(len(index), self._smoothing, np.float32)
        if self._weights is not None:
            batch["weights"] = self._weights[labels]
        return batch

    def _inputs(self, key: Key, index: NDArray[np.int64], rows: NDArray[np.int64]) -> Array:
        """Return the inputs of pictures: a view of each, or the mean of some of its views."""
        if self._dropout is None:
            return self.inputs(rows[index])
        draw, found = key.generator("views that are left out"), []
        for picture, drawn in zip(self._train[index].tolist(), rows[index].tolist(), strict=True):
            first, end = self._file.starts[picture : picture + 2].tolist()
            kept = first + np.flatnonzero(draw.random(end - first) >= self._dropout)
            some = kept if len(kept) else np.array([drawn])
            found.append(self.inputs(some).mean(axis=0))
        return np.stack(found)

    def inputs(self, rows: NDArray[np.int64]) -> Array:
        """Return rows of the file as heads read them."""
        return self._standard(self._file.rows(rows))

    def first_rows(self, index: NDArray[np.int64]) -> Array:
        """Return the inputs of pictures to train on, by their place among those."""
        return self.inputs(self._file.starts[self._train[index]])

    def evaluation(self) -> Batch:
        """Return `rows` and `labels` of the held-out pictures; `loss` reads a few at a time."""
        if self._every_view:
            first, end = (
                self._file.starts[self._evaluation],
                self._file.starts[self._evaluation + 1],
            )
            rows = [np.arange(a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]
            labels = np.repeat(self._file.labels[self._evaluation], end - first)
            return {"rows": np.concatenate(rows), "labels": labels}
        return {
            "rows": self._file.starts[self._evaluation],
            "labels": self._file.labels[self._evaluation],
        }

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return cross entropies (points, samples)."""
        if "inputs" in batch:
            return runtime.forward(batch, points)
        parts = []
        for start in range(0, len(batch["labels"]), TOGETHER):
            some = slice(start, start + TOGETHER)
            part = {"inputs": self.inputs(batch["rows"][some]), "labels": batch["labels"][some]}
            parts.append(runtime.forward(part, points))
        return np.concatenate(parts, axis=1)

    def _rows(self, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of an epoch, and the row of each picture's view in it."""
        order = key.generator("epoch").permutation(self.count)
        first, end = self._file.starts[self._train], self._file.starts[self._train + 1]
        drawn = key.generator("view of an epoch").random(self.count)
        return order, first + (drawn * (end - first)).astype(np.int64)
