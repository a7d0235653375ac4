"""From a method's name to its estimator and transform chain; what all tasks share of it."""

from collections.abc import Mapping
from typing import Any, Literal

from edge_train.optim.transforms import Adam, Chain, LearningRate, NormCorrection, WeightDecay
from edge_train.protocols import Estimator, Transform
from edge_train.recipe import EXACT, LOW_RANK, Recipe, known


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
    decay = (WeightDecay(recipe.weight_decay),) if recipe.weight_decay else ()
    adam = Chain((Adam(), *decay, schedule))
    if recipe.method in EXACT:
        from edge_train.estimators.backprop import Backprop

        if recipe.method in LOW_RANK:
            from edge_train.methods.low_rank import low_rank

            rank, every, factor = map(known, (recipe.rank, recipe.refresh_every, recipe.scale))
            after = (*decay, schedule)
            rule = low_rank(recipe.method, rank, every, factor, recipe.seed, after, recipe.basis)
            return Backprop(recipe.micro_batch), rule
        if recipe.method == "adamw8bit":
            from edge_train.optim.adam8bit import Adam8bit

            return Backprop(recipe.micro_batch), Chain((Adam8bit(), *decay, schedule))
        return Backprop(recipe.micro_batch), adam
    from edge_train.estimators.zo import ZerothOrder

    queries = known(recipe.queries)
    if recipe.preset == "zoodip":
        from edge_train.optim.denoise_subspace import DenoiseSubspace

        absolute = dict.fromkeys(scale, 1.0)
        links = (NormCorrection(queries), DenoiseSubspace(queries), Adam(epsilon=1e-3), schedule)
        return ZerothOrder(epsilon, absolute, queries, 1), Chain(links)
    sides: Literal[1, 2] = 2 if recipe.sides == 2 else 1
    if recipe.preset == "mezo":
        absolute = dict.fromkeys(scale, 1.0)
        return ZerothOrder(epsilon, absolute, queries, sides), Chain((*decay, schedule))
    return ZerothOrder(epsilon, scale, queries, sides), adam
