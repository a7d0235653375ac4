"""From a method's name to its estimator and transform chain; what all tasks share of it."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from edge_train.protocols import Estimator, Transform
from edge_train.recipe import Recipe
from edge_train.transforms import Adam, Chain, LearningRate, NormCorrection


def build_method(
    recipe: Recipe, epsilon: float, scale: Mapping[str, float]
) -> tuple[Estimator[Any], Transform]:
    """Return the estimator and the transform chain that a method's name stands for.

    Args:
      epsilon: relative radius; ignored by methods that do not perturb.
      scale: root mean square of each block at the start.
    """
    steps = known(recipe.steps)
    if recipe.learning_rate is not None:
        rate, relative = recipe.learning_rate, False
    else:
        rate, relative = known(recipe.relative_rate), True
    final = 0.1 if recipe.schedule == "cosine" else 1.0
    schedule = LearningRate(rate, steps, final, relative)
    if recipe.method == "backprop":
        from edge_train.methods.backprop import Backprop

        return Backprop(), Chain((Adam(), schedule))
    from edge_train.methods.zo import ZerothOrder

    queries = known(recipe.queries)
    if recipe.preset == "zoodip":
        from edge_train.subspace import DenoiseSubspace

        absolute = dict.fromkeys(scale, 1.0)
        links = (NormCorrection(queries), DenoiseSubspace(queries), Adam(epsilon=1e-3), schedule)
        return ZerothOrder(epsilon, absolute, queries, 1), Chain(links)
    sides: Literal[1, 2] = 2 if recipe.sides == 2 else 1
    return ZerothOrder(epsilon, scale, queries, sides), Chain((Adam(), schedule))


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def known(value: Any) -> Any:
    """Return a recipe value that `resolve` has filled in."""
    if value is None:
        raise TypeError("the recipe was not resolved")
    return value
