"""The cross entropy of logits and labels, with its gradient."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array


def cross_entropy(
    logits: Array,
    labels: NDArray[Any],
    smoothing: float = 0.0,
    weights: NDArray[np.float32] | None = None,
) -> tuple[Array, Array]:
    """Return the loss of every sample, and its gradient with respect to the logits.

    With smoothing s and k classes the target of the label is 1 - s + s / k, that of the others
    s / k, as in torch.nn.functional.cross_entropy.

    Args:
      logits: (samples, classes).
      labels: (samples,) class numbers.
      weights: (samples,) what each sample counts; None: 1.

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
    if smoothing:
        even = np.log(total[:, 0]) - shifted.mean(axis=1)
        losses += np.float32(smoothing) * (even - losses)
        shares -= np.float32(smoothing / logits.shape[1])
        shares[rows, labels] -= np.float32(1 - smoothing)
    else:
        shares[rows, labels] -= 1
    if weights is not None:
        losses *= weights
        shares *= weights[:, None]
    return losses, shares
