"""Fitting a patch: a training run in small, whose only parameter is the patch and stays in memory.

Where the backbone has slopes the gradient is exact; else it is estimated from forward passes, and
what is kept of a step is its projected gradients, from which a killed audit makes the patch again.
An exact step keeps nothing: a patch whose fitting was killed is fitted again.
"""

from typing import Any

import numpy as np

from edge_train.arrays.types import Array, State
from edge_train.errors import NonFinite, TrainingStopped
from edge_train.estimators.backprop import Backprop
from edge_train.estimators.zo import ZerothOrder
from edge_train.memory.guard import Guard
from edge_train.optim.transforms import Adam, Chain, LearningRate
from edge_train.protocols import Estimator
from edge_train.rng import Key
from edge_train.tasks.auditing import Parts
from edge_train.tasks.images.audit.patches import PATCH, PatchEngine, PatchTask, pixels_of

FINE, COARSE = 64, 6  # numbers along a side of the patch: with slopes, and without
_START = 0.3  # standard deviation of the first patch: nearly grey
_RATE, _RADIUS, _QUERIES = 0.3, 0.5, 8  # tried on CIFAR's subset and on the photos of DreamBooth


def start_of(exact: bool, seed: int) -> Array:
    """Return the block that fitting begins with: forward-only, few numbers."""
    side = FINE if exact else COARSE
    draw = Key(seed, 0).generator("start of a patch")
    return draw.standard_normal((side, side, 3), np.float32) * np.float32(_START)


def cost_of(exact: bool, task: PatchTask) -> int:
    """Return the forward passes of a step; a backward one counts as two."""
    samples = min(task.samples, len(task.photos.labels))
    return samples * task.views * (4 if exact else _QUERIES + 1)


def fitted(
    engine: PatchEngine,
    task: PatchTask,
    *,
    exact: bool,
    steps: int,
    guard: Guard,
    parts: Parts,
    name: str,
) -> Array:
    """Return the pixels of a patch that leaves the right class as small a lead as it can.

    Args:
      steps: that are taken; a step is a function of the task's seed and its number.
      name: of the kept steps.

    Raises:
      TrainingStopped: a loss was not finite, or more is held than the cap.
    """
    estimator: Estimator[Any] = (
        Backprop() if exact else ZerothOrder(_RADIUS, {PATCH: 1.0}, _QUERIES)
    )
    rule = Chain((Adam(), LearningRate(_RATE, steps, final=0.1)))
    parameters = engine.parameters
    state: State = rule.init(parameters.for_transform(PATCH))
    kept = list(parts.of(name))
    for step in range(steps):
        key = Key(task.seed, step)

        def apply(block: str, gradient: Any, key: Key = key) -> None:
            update = rule.update(gradient, state, parameters.for_transform(block))
            parameters.subtract(block, update, key)

        if isinstance(estimator, ZerothOrder) and step < len(kept):
            estimator.replay(tuple(kept[step]), parameters, key, apply)
            continue
        try:
            found = estimator.estimate(engine, task, task.batch(key), key, apply)
        except NonFinite as error:
            raise TrainingStopped(
                f"the audit's patch: {error}; the head or its backbone gives numbers that are not "
                "finite."
            ) from error
        guard.check(step)
        if not exact:
            parts.keep(name, list(found.scalars))
    return pixels_of(parameters[PATCH])
