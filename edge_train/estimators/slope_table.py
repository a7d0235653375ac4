"""How far a rounded graph's zeroth-order slopes are from the exact ones, radius by radius."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.artifact import SlopeRow
from edge_train.protocols import GradientRuntime, Objective, Runtime
from edge_train.rng import Key, direction

Slopes = NDArray[np.float64]  # (directions, samples)

KEY = Key(0, -4)  # the same directions for every model and profile
GRID = (0.003, 0.01, 0.03, 0.1, 0.3)  # shares of a coordinate's root mean square
_EXACT_RADIUS = 0.003  # float32 losses still differ in many digits, and curvature has no say
_STRAIGHT = 0.03  # up to this radius the loss is a straight line: all error is rounding
_ROUNDING_SHARE = 0.05  # of the slopes' variance, at a safe radius
_TOLERANCE_MARGIN = 2.0  # other batches hold samples that round worse than the measured ones
_TOLERANCE_FLOOR = 1e-5  # float32 sums in another order: other engines, machines, batch sizes


@dataclass(frozen=True)
class Exact:
    """The float model at one point: slopes (directions, samples) and losses (samples,)."""

    slopes: Slopes
    losses: Array


@dataclass(frozen=True)
class SlopeTable:
    """What a graph keeps of the float model; the manifest's keys of the same names."""

    rows: tuple[SlopeRow, ...]
    safe_epsilon: float
    loss_tolerance: float


def exact_slopes(
    runtime: GradientRuntime, batch: Batch, scale: Mapping[str, float], directions: int, key: Key
) -> Exact:
    """Return the derivative of every sample's loss along every direction, by automatic gradients.

    Memory: one gradient; a sample at a time goes through the runtime.
    """
    samples = len(next(iter(batch.values())))
    slopes, losses = np.zeros((directions, samples)), np.empty(samples, np.float32)
    for sample in range(samples):

        def add(name: str, gradient: Array, sample: int = sample) -> None:
            for query in range(directions):
                z = direction(key, query, name, gradient.shape).astype(np.float64)
                slopes[query, sample] += scale[name] * np.vdot(gradient, z)

        one = {name: values[sample : sample + 1] for name, values in batch.items()}
        losses[sample] = runtime.backward(one, add)[0]
    return Exact(slopes, losses)


def central_slopes(
    runtime: Runtime, task: Objective, batch: Batch, scale: Mapping[str, float], directions: int
) -> Exact:
    """Return the same from central differences, for models whose gradient does not fit."""
    center = runtime.parameters
    up, down = (
        _moved(center, scale, directions, radius, KEY) for radius in (_EXACT_RADIUS, -_EXACT_RADIUS)
    )
    losses = task.loss(runtime, batch, [center, *up, *down])
    above, below = np.split(losses[1:].astype(np.float64), 2)
    return Exact((above - below) / (2 * _EXACT_RADIUS), losses[0])


def compare(
    runtime: Runtime,
    task: Objective,
    batch: Batch,
    scale: Mapping[str, float],
    exact: Exact,
    key: Key = KEY,
) -> SlopeTable:
    """Return what one-sided slopes of `runtime`, as training takes them, keep of the exact ones.

    The safe radius: rounding adds noise of about the same size to every loss, whatever the radius
    (measured: within a third from 0.003 to 0.1), so its part in the variance of a slope falls with
    the square of the radius. The size is measured where the loss is a straight line and nothing
    but rounding can move a slope. The safe radius is the one where that part is 5 % of the variance
    that slopes have anyway from one direction to the next: an estimate from rounded losses then
    needs 5 % more directions to be as good, and its correlation with the exact slopes is at least
    1 / sqrt(1.05) = 0.976, before curvature. Nothing hangs on one row of the table or on a grid: an
    error of 20 % in the measured variance moves the radius by 10 %.

    Args:
      exact: of the float model, at the same point, from the same batch, with the same key.
    """
    center = task.loss(runtime, batch, [runtime.parameters]).astype(np.float64)
    rows, noise = [], 0.0

    def measure(radius: float) -> float:
        points = _moved(runtime.parameters, scale, len(exact.slopes), radius, key)
        slopes = (task.loss(runtime, batch, points) - center) / radius
        rows.append(relate(radius, slopes, exact.slopes))
        return float(np.square(slopes - exact.slopes).mean() / np.square(exact.slopes).mean())

    for radius in GRID:
        error = measure(radius)
        if radius <= _STRAIGHT:
            noise = max(noise, error * radius**2)
    safe = max(GRID[0], _rounded_up(math.sqrt(noise / _ROUNDING_SHARE)))
    if safe not in GRID:
        measure(safe)
    difference = np.abs(center[0] / exact.losses.astype(np.float64) - 1).max()
    tolerance = max(_TOLERANCE_FLOOR, _rounded_up(_TOLERANCE_MARGIN * float(difference)))
    return SlopeTable(tuple(sorted(rows, key=lambda row: row.epsilon)), safe, tolerance)


def relate(radius: float, slopes: Slopes, exact: Slopes) -> SlopeRow:
    """Return how slopes at one radius relate to the exact ones."""
    correlation = float(np.corrcoef(slopes.ravel(), exact.ravel())[0, 1])
    agreement = float((np.sign(slopes) == np.sign(exact)).mean())
    return SlopeRow(radius, round(correlation, 4), round(agreement, 4))


def _rounded_up(value: float) -> float:
    """Return a positive finite number with two digits, not smaller; others as they are.

    >>> _rounded_up(0.1701), _rounded_up(0.0030)
    (0.18, 0.003)
    """
    if not (0 < value < math.inf):
        return value
    digits = 1 - math.floor(math.log10(value))
    shift = 10.0**digits
    return round(math.ceil(round(value * shift, 6)) / shift, digits)


def _moved(
    center: Point, scale: Mapping[str, float], directions: int, radius: float, key: Key
) -> list[Point]:
    estimator = ZerothOrder(1.0, scale)
    return [estimator.perturbed(center, key, query, radius) for query in range(directions)]
