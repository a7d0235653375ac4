"""The cross entropy of logits and labels, with its gradient."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array


def cross_entropy(logits: Array, labels: NDArray[Any]) -> tuple[Array, Array]:
    """Return the loss of every sample, and its gradient with respect to the logits.

    Args:
      logits: (samples, classes).
      labels: (samples,) class numbers.

    >>> losses, error = cross_entropy(np.zeros((1, 2), np.float32), np.array([1]))
    >>> losses.tolist(), error.tolist()
    ([0.6931471824645996], [[0.5, -0.5]])
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted)
    total = shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    losses: Array = np.log(total[:, 0]) - shifted[rows, labels]
    shares /= total
    shares[rows, labels] -= 1
    return losses, shares
