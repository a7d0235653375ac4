"""What a run of task points holds, counted from its sizes and the headers of its files."""

import math
from collections.abc import Mapping

from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    state_line,
)
from edge_train.methods import held_at_once
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.tasks.points import TASK
from edge_train.tasks.points.network import Shape
from edge_train.tasks.points.objective import FEW_HELD_OUT, MORE_SCORED
from edge_train.tasks.points.recipe import PointsRecipe

_COPIES = 2  # of the weights in float32: gradient, or what zo tries
_READER_BYTES = 4_000_000  # lines of a file as words
_FILE_COPIES = 6  # of a mesh: words and numbers of its corners and triangles
_SORTED = 8  # arrays of all projections of a cloud: values, orders, differences


def footprint_of(
    recipe: PointsRecipe,
    shape: Shape,
    shapes: Mapping[str, tuple[int, ...]],
    rule: Transform,
    *,
    clouds: int,
    largest_bytes: int,
) -> Footprint:
    """Return what a run holds.

    Args:
      shape: of the network; `shapes` of all that is trained.
      rule: what makes updates of gradients.
      clouds: how many there are.
      largest_bytes: of the largest file.
    """
    use = TASK.use(recipe.runtime)
    items = sum(map(math.prod, shapes.values()))
    data = PlanLine("clouds", 12 * clouds * recipe.points + 500 * clouds)
    weights = PlanLine("weights", 4 * items)
    state = state_line(rule, shapes, _COPIES, held_at_once(recipe))
    samples = required(recipe.samples)
    limits = (recipe.micro_batch, recipe.batch_limit, samples)
    together = min(limit for limit in limits if limit)
    judged = max(1, clouds // 10)
    more = min(clouds - judged, MORE_SCORED) if judged < FEW_HELD_OUT else 0
    compared = (
        4
        * recipe.points
        * (recipe.points * 3 if recipe.loss == "chamfer" else _SORTED * recipe.slices)
    )
    gradients = 4 * items if together < samples else 0
    training = together * (shape.activation_bytes + 24 * recipe.points) + compared + gradients
    scored = 12 * recipe.points * (min(judged, samples) + more) + 12 * recipe.points**2
    results = 4 * items
    return Footprint(
        use.libraries,
        4 * items,
        {PREPARE: (data,), TRAIN: (data, weights, state), SAVE: (data, weights)},
        {
            PREPARE: min(_FILE_COPIES * largest_bytes, 10**12) + _READER_BYTES,
            TRAIN: training,
            SAVE: together * shape.activation_bytes + scored,
        },
        use.first_use_bytes,
        use.libraries_bytes,
        operations=shape.operations,
        products=len(shapes),
        together=together,
        evaluated=judged,
        after=judged + more,
        trained=items,
        folder=folder_lines(
            len(shapes),
            4 * items,
            state_line(rule, shapes, 0, held_at_once(recipe)).bytes,
            0,
            results,
        ),
    )
