"""Slopes and curvature along random directions, from what the model answers at each point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import LeastSquares, Runtime

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """What forward passes say of the loss around a point, sample by sample.

    Attributes:
      losses: (points, samples).
      slopes: (directions, samples), of the loss along each direction, per unit of it.
      curvature: (directions, directions), the Gauss-Newton matrix of the mean loss in their span.
    """

    losses: Numbers
    slopes: Numbers
    curvature: Numbers


def residual_slopes(
    runtime: Runtime,
    task: LeastSquares,
    batch: Batch,
    moved: Sequence[Point],
    against: Sequence[Point],
    radius: float,
) -> Slopes:
    """Measure slopes from points that lie `radius` times a direction beside another one.

    With r the residuals at the center, L = |r|^2, and D_i = r(x + e z_i) - r,

        L(x + e z_i) - L(x) = 2 r.D_i + |D_i|^2

    exactly. The difference of losses over e has a bias |D_i|^2 / e, which grows with e: what is
    left without it is the slope 2 r.D_i / e. The answers bend, too, and that part of the bias
    stays. Then c_ij = 2 D_i.D_j / e^2, the mean over samples. From two sides D_i is half of the
    difference between both and r their mean, which also takes away the even part of the bend.

    Args:
      moved: x + e z_i.
      against: x, or x - e z_i for each of `moved`.

    Memory: the residuals of the batch at every point, in float32, and those of two in float64.

    Source: PseuZO (NeurIPS 2025), whose gradient is a difference of outputs times the loss's own
    derivative; derivative-free Gauss-Newton in random subspaces (Cartis and Roberts, Mathematical
    Programming 2022). We differ from both: no output is kept for a later batch.
    """
    residuals = task.residuals(runtime, batch, [*moved, *against])
    losses = np.stack([np.square(own, dtype=np.float64).sum(axis=1) for own in residuals])
    differences, others = residuals[: len(moved)], residuals[len(moved) :]
    slopes = []
    for number, difference in enumerate(differences):
        base = others[0]
        if len(against) > 1:
            base = (difference + others[number]) / 2
            difference -= others[number]
            difference /= 2
        else:
            difference -= base
        slopes.append(np.multiply(base, difference, dtype=np.float64).sum(axis=1))
    return Slopes(losses, 2 / radius * np.stack(slopes), _curvature(differences, radius))


def _curvature(differences: Array, radius: float) -> Numbers:
    """Return c of `residual_slopes`, of the mean over samples."""
    count, samples = differences.shape[:2]
    found = np.empty((count, count))
    for row in range(count):
        for column in range(row + 1):
            product = np.multiply(differences[row], differences[column], dtype=np.float64).sum()
            found[row, column] = found[column, row] = 2 * product / (samples * radius**2)
    return found
