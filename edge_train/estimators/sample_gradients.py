"""Gradients of a layer sample by sample, from factors: of each only the numbers that are asked for.

A whole matrix exists for the mean of some samples, never for every one of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from edge_train.arrays.types import Array
from edge_train.estimators.coreset import Numbers
from edge_train.protocols import LastLayer

Directions = Callable[[int], Array]


class SampleGradients(Protocol):
    """Gradients (outputs, inputs) of some samples."""

    def mean(self, samples: Numbers) -> Array:
        """Return the mean gradient of some samples, (outputs, inputs)."""
        ...

    def at(self, samples: Numbers, places: Numbers) -> Array:
        """Return numbers of each gradient by their places in it, flat: (samples, places)."""
        ...


@dataclass(frozen=True)
class ExactGradients:
    """Of the layer as it is."""

    layer: LastLayer

    def mean(self, samples: Numbers) -> Array:
        """Return the mean gradient of some samples: one product of the factors."""
        rows = np.isin(self.layer.samples, samples)
        found: Array = self.layer.errors[rows].T @ self.layer.inputs[rows]
        return found / np.float32(max(len(samples), 1))

    def at(self, samples: Numbers, places: Numbers) -> Array:
        """Return numbers of each gradient: sums over its rows of a product each.

        Memory: these numbers for every row of one sample, three times.
        """
        outputs, inputs = np.divmod(places, self.layer.inputs.shape[1])
        found = np.empty((len(samples), len(places)), np.float32)
        for number, rows in enumerate(_rows(self.layer, samples)):
            errors, entered = self.layer.errors[rows], self.layer.inputs[rows]
            found[number] = (errors[:, outputs] * entered[:, inputs]).sum(axis=0)
        return found


@dataclass(frozen=True)
class SlopeGradients:
    """Of the layer as forward passes along a few directions see it: sum_k <gradient, z_k> z_k / K.

    Args:
      count: K; with one, every gradient is a multiple of the same z.
      direction: returns z_k (outputs, inputs), the same at every call.

    Source: CoLM (arXiv:2407.19580) takes one direction and differences of two losses; a slope here
    is the limit of that difference, which the factors give without its rounding.
    """

    layer: LastLayer
    count: int
    direction: Directions

    @cached_property
    def slopes(self) -> Array:
        """The slope of every sample along each direction, (samples, K)."""
        found = np.empty((len(self.layer.losses), self.count), np.float32)
        for k in range(self.count):
            along = (self.layer.inputs @ self.direction(k).T * self.layer.errors).sum(axis=1)
            for number, rows in enumerate(_rows(self.layer, np.arange(len(found)))):
                found[number, k] = along[rows].sum()
        return found

    def mean(self, samples: Numbers) -> Array:
        """Return the mean of some samples."""
        slopes = self.slopes[samples].mean(axis=0) / np.float32(self.count)
        found: Array = slopes[0] * self.direction(0)
        for k in range(1, self.count):
            found += slopes[k] * self.direction(k)
        return found

    def at(self, samples: Numbers, places: Numbers) -> Array:
        """Return numbers of each one by their places."""
        directions = np.stack([self.direction(k).reshape(-1)[places] for k in range(self.count)])
        found: Array = self.slopes[samples] @ directions / np.float32(self.count)
        return found


def products(layer: LastLayer) -> Array:
    """Return the inner product of every two samples' gradients, (samples, samples).

    <dW_i, dW_j> = sum over rows t of i and s of j of <e_t, e_s><a_t, a_s>: no matrix is formed.

    Memory: two squares of the number of rows.
    """
    each: Array = (layer.errors @ layer.errors.T) * (layer.inputs @ layer.inputs.T)
    starts = np.searchsorted(layer.samples, np.arange(len(layer.losses)))
    found: Array = np.add.reduceat(np.add.reduceat(each, starts, axis=0), starts, axis=1)
    return found


def adam_features(gradients: Array, first: Array, second: Array, steps: int) -> Array:
    """Return what Adam would make of each gradient after the history of earlier steps.

    x_i = m_i / (sqrt(v_i) + 1e-8), m_i = (0.9 m + 0.1 g_i) / (1 - 0.9^t), v_i = (0.999 v + 0.001
    g_i^2) / (1 - 0.999^t), t = steps + 1. Without a history that is the sign of each number.

    Args:
      gradients: (samples, places).
      first, second: moments m and v of these places, (places,), not corrected.
      steps: that are in the history.

    Source: CoLM (arXiv:2407.19580), Adam with its usual constants.
    """
    t = steps + 1
    mean = (_FIRST * first + (1 - _FIRST) * gradients) / np.float32(1 - _FIRST**t)
    square = (_SECOND * second + (1 - _SECOND) * gradients**2) / np.float32(1 - _SECOND**t)
    found: Array = (mean / (np.sqrt(square) + np.float32(1e-8))).astype(np.float32)
    return found


def remember(gradient: Array, first: Array, second: Array) -> None:
    """Fold a gradient into both moments, in place."""
    first *= np.float32(_FIRST)
    first += np.float32(1 - _FIRST) * gradient
    second *= np.float32(_SECOND)
    second += np.float32(1 - _SECOND) * gradient * gradient


def largest(gradient: Array, most: int) -> Numbers:
    """Return the places of the numbers of largest size, flat and ascending.

    >>> largest(np.array([[0.0, -3.0], [1.0, 2.0]], np.float32), 2).tolist()
    [1, 3]
    """
    sizes = -np.abs(gradient.reshape(-1))
    if len(sizes) <= most:
        return np.arange(len(sizes))
    return np.sort(np.argsort(sizes, kind="stable")[:most])


def _rows(layer: LastLayer, samples: Numbers) -> list[slice]:
    """Return where the rows of each sample are."""
    starts = np.searchsorted(layer.samples, samples, side="left").tolist()
    ends = np.searchsorted(layer.samples, samples, side="right").tolist()
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


_FIRST, _SECOND = 0.9, 0.999  # Adam's decay of both moments
