"""Losses of a block against its projected target, and their errors at its outputs."""

from collections.abc import Callable

import numpy as np

from edge_train.arrays.types import Array

_HUBER_WIDTH = np.float32(0.5)  # residuals beyond it count linearly; targets are of size one


def local_error(loss: str, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return the loss of every row, and its gradient with respect to the outputs.

    The loss of a row is the sum over units, so that the gradient of a unit does not depend on how
    many there are; the caller divides by the rows.

    Args:
      loss: a key of `LOCAL_LOSSES`.
      outputs: (rows, units).
      targets: (rows, units). `MARGIN_LOSSES` read their signs only.

    >>> y, t = np.array([[0.5, -0.5]], np.float32), np.array([[1.0, 1.0]], np.float32)
    >>> local_error("l2", y, t)[1].tolist(), local_error("sign", y, t)[1].tolist()
    ([[-0.5, -1.5]], [[-1.0, -1.0]])
    """
    return LOCAL_LOSSES[loss](outputs, targets)


def _l2(outputs: Array, targets: Array) -> tuple[Array, Array]:
    error = outputs - targets
    return np.float32(0.5) * np.einsum("ij,ij->i", error, error), error


def _sign(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Absolute distance: the gradient is a sign, which integers hold exactly."""
    error = outputs - targets
    losses: Array = np.abs(error).sum(axis=1)
    return losses, np.sign(error, out=error)


def _huber(outputs: Array, targets: Array) -> tuple[Array, Array]:
    error = outputs - targets
    bounded = np.clip(error, -_HUBER_WIDTH, _HUBER_WIDTH)
    return np.einsum("ij,ij->i", bounded, error - np.float32(0.5) * bounded), bounded


def _hinge(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Half the squared shortfall from a margin of one: the smooth hinge."""
    signs = np.sign(targets)
    short = np.maximum(1 - signs * outputs, 0)
    return np.float32(0.5) * np.einsum("ij,ij->i", short, short), -signs * short


def _logistic(outputs: Array, targets: Array) -> tuple[Array, Array]:
    signs = np.sign(targets)
    margin = signs * outputs
    losses: Array = np.maximum(-margin, 0).sum(axis=1)
    losses += np.log1p(np.exp(-np.abs(margin))).sum(axis=1)
    return losses, signs * np.float32(-0.5) * (1 - np.tanh(np.float32(0.5) * margin))


def _cosine(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """One minus the cosine between the two rows."""
    length = np.linalg.norm(outputs, axis=1, keepdims=True) + np.float32(1e-6)
    unit = outputs / length
    target = targets / (np.linalg.norm(targets, axis=1, keepdims=True) + np.float32(1e-6))
    cosine = np.einsum("ij,ij->i", unit, target)
    error: Array = (unit * cosine[:, None] - target) / length
    return 1 - cosine, error


LOCAL_LOSSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "l2": _l2,
    "sign": _sign,
    "huber": _huber,
    "hinge": _hinge,
    "logistic": _logistic,
    "cosine": _cosine,
}
MARGIN_LOSSES = ("hinge", "logistic")  # of a target they read the sign alone
