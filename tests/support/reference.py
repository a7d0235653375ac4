"""Plain NumPy definitions of each kernel, in float64; the fast ones are compared with these."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def random_gradient(
    loss: Callable[[Vector], float],
    point: Vector,
    directions: Sequence[Vector],
    radius: float,
    sides: int,
) -> Vector:
    """Return the mean over directions of (slope of `loss` along z) * z."""
    total = np.zeros_like(point)
    for z in directions:
        if sides == 1:
            slope = (loss(point + radius * z) - loss(point)) / radius
        else:
            slope = (loss(point + radius * z) - loss(point - radius * z)) / (2 * radius)
        total += slope * z
    return total / len(directions)


def adam(gradients: Sequence[Vector], beta1: float, beta2: float, epsilon: float) -> Vector:
    """Return Adam's last update from all gradients so far, written as explicit weighted sums."""
    count = len(gradients)
    weights = np.arange(count - 1, -1, -1)
    first = sum((1 - beta1) * beta1**w * g for w, g in zip(weights, gradients, strict=True))
    second = sum((1 - beta2) * beta2**w * g * g for w, g in zip(weights, gradients, strict=True))
    ratio: Vector = (first / (1 - beta1**count)) / (np.sqrt(second / (1 - beta2**count)) + epsilon)
    return ratio


def denoise(gradient: Vector, history: NDArray[Any], nu: float) -> tuple[Vector, int]:
    """Return the gradient without the low-variance directions of `history`, and their number.

    Args:
      gradient: (coordinates,).
      history: (tau, coordinates) past parameters.
      nu: share of variance to remove.

    The definition by eigenvectors of the covariance of the standardized history.
    """
    history = history.astype(np.float64)
    deviation = history.std(axis=0)
    deviation[deviation == 0] = 1
    standardized = (history - history.mean(axis=0)) / deviation
    values, vectors = np.linalg.eigh(standardized.T @ standardized)
    values, vectors = values[::-1], vectors[:, ::-1]
    share = np.cumsum(values) / values.sum()
    keep = int(np.argmax(share >= 1 - nu)) + 1
    rank = min(len(history) - 1, len(values))
    low = vectors[:, keep:rank]
    scaled = gradient / deviation
    return (scaled - low @ (low.T @ scaled)) * deviation, max(rank - keep, 0)


def ddim_step(latents: Vector, noise: Vector, signal_now: float, signal_before: float) -> Vector:
    """Return the latents one deterministic DDIM step earlier, for predicted `noise`."""
    clean = (latents - (1 - signal_now) ** 0.5 * noise) / signal_now**0.5
    earlier: Vector = signal_before**0.5 * clean + (1 - signal_before) ** 0.5 * noise
    return earlier


def cosine_basis(width: int) -> Vector:
    """Return the orthonormal DCT-II: row i is sqrt(2 / width) cos(pi i (2 j + 1) / (2 width))."""
    rows, columns = np.indices((width, width))
    basis: Vector = np.sqrt(2 / width) * np.cos(np.pi * rows * (2 * columns + 1) / (2 * width))
    basis[0] *= np.sqrt(0.5)
    return basis
