"""How far a rounded graph's zeroth-order slopes are from the exact ones, radius by radius."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_train.artifact import SlopeRow
from edge_train.methods.zo import ZerothOrder
from edge_train.protocols import Batch, Point, Runtime, Task
from edge_train.rng import Key

_KEY = Key(0, -4)  # the same directions for every model and profile
_EXACT_RADIUS = 0.003  # float32 losses still differ in many digits, and curvature has no say
_SHARE = 0.98  # of the best correlation: what a safe radius reaches


def exact_slopes(
    runtime: Runtime, task: Task, batch: Batch, scale: Mapping[str, float], directions: int
) -> NDArray[np.float64]:
    """Return central differences of a float model, (directions, samples)."""
    up, down = (
        _moved(runtime.parameters, scale, directions, radius)
        for radius in (_EXACT_RADIUS, -_EXACT_RADIUS)
    )
    losses = task.loss(runtime, batch, [*up, *down]).astype(np.float64)
    slopes: NDArray[np.float64] = (losses[:directions] - losses[directions:]) / (2 * _EXACT_RADIUS)
    return slopes


def slope_table(
    runtime: Runtime,
    task: Task,
    batch: Batch,
    scale: Mapping[str, float],
    exact: NDArray[np.float64],
    radii: Sequence[float],
) -> tuple[SlopeRow, ...]:
    """Return what one-sided slopes of `runtime`, as training takes them, keep of the exact ones.

    Args:
      exact: (directions, samples) of the float model at the same point, from the same batch.
    """
    center = task.loss(runtime, batch, [runtime.parameters]).astype(np.float64)
    rows = []
    for radius in radii:
        points = _moved(runtime.parameters, scale, len(exact), radius)
        slopes = (task.loss(runtime, batch, points).astype(np.float64) - center) / radius
        correlation = float(np.corrcoef(slopes.ravel(), exact.ravel())[0, 1])
        agreement = float((np.sign(slopes) == np.sign(exact)).mean())
        rows.append(SlopeRow(radius, round(correlation, 4), round(agreement, 4)))
    return tuple(rows)


def safe_epsilon(rows: Sequence[SlopeRow]) -> float:
    """Return the smallest radius from which on rounding does not decide the slopes.

    A smaller radius is rounding noise over a small difference. What quantized weights change is
    there at every radius, so the measure is the best correlation of the table, not 1.

    >>> safe_epsilon([SlopeRow(0.01, 0.3, 0.6), SlopeRow(0.1, 0.9, 0.9), SlopeRow(0.3, 0.8, 0.9)])
    0.1
    """
    best = max(row.correlation for row in rows)
    return next(row.epsilon for row in rows if row.correlation >= _SHARE * best)


def _moved(
    center: Point, scale: Mapping[str, float], directions: int, radius: float
) -> list[Point]:
    estimator = ZerothOrder(1.0, scale)
    return [estimator.perturbed(center, _KEY, query, radius) for query in range(directions)]
