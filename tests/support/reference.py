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


def normalized(gradient: Vector, axis: int) -> Vector:
    """Return SCALE's update: lines along `axis` with a root mean square of 1."""
    update: Vector = gradient / np.sqrt(np.mean(gradient**2, axis=axis, keepdims=True))
    return update


def racs(gradients: Sequence[Vector], rounds: int, beta: float, growth: float) -> list[Vector]:
    """Return RACS's updates of alpha 1, written with the matrices Q and S of the paper."""
    rows = columns = 0.0
    length, updates = 0.0, []
    for count, g in enumerate(gradients, 1):
        q = np.ones(len(g))
        for _ in range(rounds):
            s = np.diag(g.T @ np.diag(q) @ g) / np.linalg.norm(np.diag(q)) ** 2
            q = np.diag(g @ np.diag(s) @ g.T) / np.linalg.norm(np.diag(s)) ** 2
        rows, columns = beta * rows + (1 - beta) * q, beta * columns + (1 - beta) * s
        left, right = (np.diag((m / (1 - beta**count)) ** -0.5) for m in (rows, columns))
        update = left @ g @ right
        if count > 1 and np.linalg.norm(update) > growth * length:
            update *= growth * length / np.linalg.norm(update)
        length = float(np.linalg.norm(update))
        updates.append(update)
    return updates


def top_vectors(gradient: Vector, rank: int) -> Vector:
    """Return the leading right singular vectors of a standing matrix, (rank, width)."""
    vectors: Vector = np.linalg.svd(gradient)[2][:rank]
    return vectors


def fira(gradients: Sequence[Vector], rank: int, every: int, scale: float) -> list[Vector]:
    """Return Fira's updates of standing matrices: GaLore's, and the scaled remainder."""
    inside: list[Vector] = []
    vectors = np.zeros((rank, gradients[0].shape[1]))
    length, updates = 0.0, []
    for step, g in enumerate(gradients):
        if step % every == 0:
            found = top_vectors(g, rank)
            vectors = np.where((found * vectors).sum(axis=1) < 0, -1, 1)[:, None] * found
        inside.append(g @ vectors.T)
        low, moved = inside[-1], adam(inside, 0.9, 0.999, 1e-8)
        ratio = np.linalg.norm(moved, axis=1) / np.linalg.norm(low, axis=1)
        rest = ratio[:, None] * (g - low @ vectors)
        if step and np.linalg.norm(rest) > 1.01 * length:
            rest *= 1.01 * length / np.linalg.norm(rest)
        length = float(np.linalg.norm(rest))
        updates.append(scale * (moved @ vectors + rest))
    return updates


def sumo(gradients: Sequence[Vector], rank: int, every: int, decay: float) -> list[Vector]:
    """Return SUMO's updates of standing matrices: G - (G Q^T - O) Q, numbers of O of size 1."""
    total, updates = np.zeros((len(gradients[0]), rank)), []
    vectors = np.zeros((rank, gradients[0].shape[1]))
    for step, g in enumerate(gradients):
        if step % every == 0:
            found = top_vectors(g, rank)
            total = total @ (found @ vectors.T).T
            vectors = found
        total = decay * total + g @ vectors.T
        left, _, right = np.linalg.svd(total, full_matrices=False)
        whole = np.sqrt(len(g)) * (left @ right)
        updates.append(g - (g @ vectors.T - whole) @ vectors)
    return updates


def damped_step(
    slopes: Vector, curvature: NDArray[np.float64], earlier: Sequence[float], memory: float = 0.95
) -> Vector:
    """Return a = (c + t I)^-1 s, t the weighted mean of `earlier` curvatures, the newest last."""
    weights = memory ** np.arange(len(earlier))[::-1]
    damping = float(np.dot(weights, earlier) / weights.sum())
    return np.asarray(np.linalg.inv(curvature + damping * np.eye(len(slopes))) @ slopes)


def spanned(rows: NDArray[np.float64], u: Vector) -> Vector:
    """Return E u for E with these rows as columns, scaled to a mean square of 1 a coordinate."""
    columns = rows.T
    mean_square = np.trace(columns @ columns.T) / len(columns)
    return np.asarray(columns @ u / np.sqrt(mean_square))


def share_by_metric(metric: NDArray[np.float64], rows: NDArray[np.float64], move: Vector) -> float:
    """Return the share of d^T H d that the best combination of rows takes away from d."""
    inner = rows @ metric @ rows.T
    weights = np.linalg.solve(inner, rows @ metric @ move)
    rest = move - weights @ rows
    return float(1 - rest @ metric @ rest / (move @ metric @ move))


def drawn_to_unit(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Ledoit and Wolf's second moments, about zero, by their definition."""
    count, width = moves.shape
    found = sum(np.outer(d, d) for d in moves) / count
    target = np.trace(found) / width * np.eye(width)
    error = sum(np.linalg.norm(np.outer(d, d) - found) ** 2 for d in moves) / count**2
    share = min(1.0, error / np.linalg.norm(found - target) ** 2)
    return np.asarray((1 - share) * found + share * target)
