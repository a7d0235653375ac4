"""Zeroth-order estimation: a gradient from a few forward passes at perturbed points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import NonFinite
from edge_train.estimators.directions import Directions
from edge_train.protocols import Apply, Estimate, Objective, Runtime
from edge_train.rng import Key, direction


@dataclass(frozen=True)
class ZerothOrder:
    """Random gradient estimation with common random numbers.

    One-sided, n + 1 evaluations:  g = 1/n sum_i (L(x + e s z_i) - L(x)) / e * z_i / s
    Two-sided, 2 n evaluations:    g = 1/n sum_i (L(x + e s z_i) - L(x - e s z_i)) / 2e * z_i / s

    All evaluations of a step see the same batch, z_i is standard normal or comes from `draw`, e is
    `epsilon` and s the scale of the block, so that e is relative. Blocks of a perturbed point are
    made when they are read: the parameters are never touched, so nothing drifts, and a runtime that
    reads layer by layer never holds a copy of all. The scalars of the journal are the projected
    gradients (the fractions without z); with the key they rebuild every step.

    Args:
      epsilon: radius in units of `scale`.
      scale: root mean square of each block at the start of the run.
      queries: directions per step, n.
      sides: 1 or 2.
      draw: where directions come from; anywhere, if not given.

    Source: MeZO (arXiv:2305.17333), ZOODiP (arXiv:2503.14868, eq. 3). We differ from both codes:
    perturbed copies instead of in-place changes, private keyed randomness, losses compared in
    float64.
    """

    epsilon: float
    scale: Mapping[str, float]
    queries: int = 2
    sides: Literal[1, 2] = 1
    draw: Directions = direction

    def estimate(
        self, runtime: Runtime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Measure `queries` projected gradients and emit the estimate, block by block.

        Raises:
          NonFinite: a loss was not finite; nothing was applied.
        """
        found = self.measure(runtime, task, batch, key)
        self.replay(found.scalars, runtime.parameters, key, apply)
        return found

    def measure(self, runtime: Runtime, task: Objective, batch: Batch, key: Key) -> Estimate:
        """Measure `queries` projected gradients.

        Raises:
          NonFinite: a loss was not finite.
        """
        parameters = runtime.parameters
        queries = range(self.queries)
        points: list[Point] = [
            self.perturbed(parameters, key, query, self.epsilon) for query in queries
        ]
        if self.sides == 1:
            points.append(parameters)
        else:
            points += [self.perturbed(parameters, key, query, -self.epsilon) for query in queries]
        losses = task.loss(runtime, batch, points)
        if not np.isfinite(losses).all():
            raise NonFinite("a loss of the step is not finite")
        means = losses.astype(np.float64).mean(axis=1)
        slopes = (means[: self.queries] - means[self.queries :]) / (self.sides * self.epsilon)
        scalars = tuple(slopes.tolist())
        center = means[-1] if self.sides == 1 else means.mean()
        return Estimate(float(center), scalars, forwards=losses.size)

    def replay(self, scalars: Sequence[float], parameters: Point, key: Key, apply: Apply) -> None:
        """Emit the gradients that belong to these projected gradients and this key."""
        for name, block in parameters.items():
            gradient = None
            for query, slope in enumerate(scalars):
                part = self.draw(key, query, name, block.shape)
                part *= np.float32(slope / (len(scalars) * self.scale[name]))
                gradient = part if gradient is None else np.add(gradient, part, out=gradient)
            assert gradient is not None  # there is a query at least
            apply(name, gradient)

    def perturbed(self, center: Point, key: Key, query: int, radius: float) -> "Perturbed":
        """Return `center` moved by `radius` scales along one direction."""
        return Perturbed(center, self.scale, key, query, radius, self.draw)


@dataclass(frozen=True, eq=False)
class Perturbed(Mapping[str, Array]):
    """A point beside `center`; each block is made anew, as a fresh array, whenever it is read."""

    center: Point
    scale: Mapping[str, float]
    key: Key
    query: int
    radius: float
    draw: Directions = direction

    def __getitem__(self, name: str) -> Array:
        block = self.center[name]
        moved = self.draw(self.key, self.query, name, block.shape)
        moved *= np.float32(self.radius * self.scale[name])
        moved += block
        return moved

    def __iter__(self) -> Iterator[str]:
        return iter(self.center)

    def __len__(self) -> int:
        return len(self.center)
