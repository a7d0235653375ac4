"""Forward-only steps whose length is known: slopes and curvature from the model's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point, State
from edge_train.errors import NonFinite
from edge_train.estimators.directions import Directions
from edge_train.estimators.residual_slopes import residual_slopes
from edge_train.estimators.zo import Perturbed
from edge_train.protocols import Apply, Estimate, LeastSquares, Objective, Runtime
from edge_train.rng import Key, direction

_MEMORY = 0.95  # of the mean curvature: about 20 steps; a single batch says it badly


def _no_curvature() -> State:
    return {"curvature": np.zeros(1), "count": np.zeros(1, np.int64)}


@dataclass(frozen=True)
class GaussNewton:
    """The step to the least mean square in the span of a few random directions.

    With slopes s and curvature c along n directions z_i (`residual_slopes`), from n + 1
    evaluations, or 2 n from two sides, and t the running mean of tr(c) / n,

        a = (c + t I)^-1 s,   emitted: sum_i a_i s_b z_i for a block of scale s_b

    which is a step, not a gradient: it needs no learning rate. The damping is a mean over earlier
    steps because a batch of small curvature, where nothing is to be learned, would else move the
    word as far as one of large curvature. All evaluations see the same batch. Scalars of the
    journal: a_1 to a_n, and tr(c) / n of the step; with the key they rebuild step and state.

    Args:
      epsilon: radius in units of `scale`.
      scale: root mean square of each block at the start of the run.
      queries: directions per step, n.
      sides: 1 or 2.
      draw: where directions come from; anywhere, if not given.

    Attributes:
      state: the running mean, which changes in place; part of a checkpoint.

    Source: `residual_slopes`; Levenberg (1944) and Marquardt (1963) for the damping. We differ in
    its running mean.
    """

    epsilon: float
    scale: Mapping[str, float]
    queries: int = 4
    sides: Literal[1, 2] = 1
    draw: Directions = direction
    state: State = field(default_factory=_no_curvature, compare=False)

    def estimate(
        self, runtime: Runtime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Measure slopes and curvature and emit the step, block by block.

        Raises:
          NonFinite: a loss was not finite; nothing was applied.
          TypeError: the loss of the task is no sum of squares.
        """
        found = self.measure(runtime, task, batch, key)
        self.replay(found.scalars, runtime.parameters, key, apply)
        return found

    def measure(self, runtime: Runtime, task: Objective, batch: Batch, key: Key) -> Estimate:
        """Measure slopes and curvature; the running mean is read and not changed.

        Raises:
          NonFinite: a loss was not finite.
          TypeError: the loss of the task is no sum of squares.
        """
        if not isinstance(task, LeastSquares):
            raise TypeError(f"the loss of {type(task).__name__} is no sum of squares")
        parameters = runtime.parameters
        moved, back = (
            [
                Perturbed(parameters, self.scale, key, query, e, self.draw)
                for query in range(self.queries)
            ]
            for e in (self.epsilon, -self.epsilon)
        )
        against: Sequence[Point] = back if self.sides == 2 else [parameters]
        found = residual_slopes(runtime, task, batch, moved, against, self.epsilon)
        slopes = found.slopes.mean(axis=1)
        if not all(np.isfinite(part).all() for part in (found.losses, slopes, found.curvature)):
            raise NonFinite("a loss of the step is not finite")
        own = float(np.trace(found.curvature)) / self.queries
        damping = self._mean_with(own)
        lengths = np.zeros(self.queries)
        if damping > 0:  # else no direction changes any answer
            lengths = np.linalg.solve(found.curvature + damping * np.eye(self.queries), slopes)
        scalars = (*lengths.tolist(), own)
        center = found.losses[self.queries :] if self.sides == 1 else found.losses
        return Estimate(float(center.mean()), scalars, found.losses.size)

    def replay(self, scalars: Sequence[float], parameters: Point, key: Key, apply: Apply) -> None:
        """Emit the step that belongs to these scalars and this key, and remember its curvature."""
        *lengths, own = scalars
        self.state["curvature"][0] *= _MEMORY
        self.state["curvature"][0] += (1 - _MEMORY) * own
        self.state["count"] += 1
        for name, block in parameters.items():
            step: Array = np.zeros(block.shape, np.float32)
            for query, length in enumerate(lengths):
                part = self.draw(key, query, name, block.shape)
                part *= np.float32(length * self.scale[name])
                step += part
            apply(name, step)

    def _mean_with(self, own: float) -> float:
        """Return the running mean as it is with this step's curvature, which is not kept yet."""
        curvature: NDArray[np.float64] = self.state["curvature"]
        total = _MEMORY * float(curvature[0]) + (1 - _MEMORY) * own
        return total / (1 - _MEMORY ** (int(self.state["count"][0]) + 1))
