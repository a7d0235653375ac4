"""What a run of task surface holds, counted from its sizes and the header of its file."""

import math

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
from edge_train.tasks.surface import TASK
from edge_train.tasks.surface.field import Shape
from edge_train.tasks.surface.recipe import SurfaceRecipe

_COPIES = 3  # of the weights in float32: as they multiply, their gradient, what is applied
_READER_BYTES = 4_000_000  # lines of a file as words
_FILE_COPIES = 6  # of a mesh: words and numbers of its corners and triangles
_DISTANCES = 3 << 22  # tables of distances between clouds, in use at once
_TAPES = 3  # at queries, where they are moved to, and on the surface
_NODE_BYTES, _NEAR_SHARE = 9, 70  # of a node of the grid; of one near the surface
_GRID_PASS = 8192
_TRIANGLE_BYTES = 900  # with lists of neighbors, while they are turned


def footprint_of(
    recipe: SurfaceRecipe, shape: Shape, rule: Transform, *, evaluated: int, file_bytes: int
) -> Footprint:
    """Return what a run holds.

    Args:
      rule: what makes updates of gradients.
      evaluated: queries of the evaluation.
      file_bytes: of the cloud.
    """
    use = TASK.use(recipe.runtime)
    items = sum(map(math.prod, shape.shapes.values()))
    kept = recipe.points * (12 + 4 + 4 * recipe.neighbor)
    cloud = PlanLine("cloud and its neighbors", kept)
    weights = PlanLine("weights", 4 * items)
    state = state_line(rule, shape.shapes, _COPIES, held_at_once(recipe))
    samples = required(recipe.samples)
    most = max(samples, evaluated)
    together = min(limit for limit in (recipe.micro_batch, recipe.batch_limit, most) if limit)
    tapes = _TAPES * together * shape.activation_bytes
    drawn = most * (12 * recipe.neighbor + 4 * recipe.neighbor + 100)
    cells = recipe.mesh_cells
    grid = _NODE_BYTES * (cells + 9) ** 3 + _NEAR_SHARE * 6 * 8 * cells**2 if cells else 0
    mesh = 6 * 2 * cells**2 * _TRIANGLE_BYTES
    dense = 60 * recipe.dense_points + 80 * recipe.points
    results = 4 * items + 40 * (recipe.dense_points + recipe.points) + 6 * 40 * cells**2
    passing = min(_GRID_PASS, 4096) * 2 * shape.activation_bytes
    return Footprint(
        use.libraries,
        4 * items,
        {PREPARE: (cloud,), TRAIN: (cloud, weights, state), SAVE: (cloud, weights)},
        {
            PREPARE: _FILE_COPIES * file_bytes + _READER_BYTES + _DISTANCES,
            TRAIN: tapes + drawn + _DISTANCES,
            SAVE: max(grid + mesh, dense) + passing,
        },
        use.first_use_bytes,
        use.libraries_bytes,
        operations=3 * shape.operations,
        products=3 * len(shape.sides),
        together=together,
        evaluated=evaluated,
        trained=items,
        folder=folder_lines(
            len(shape.shapes),
            4 * items,
            state_line(rule, shape.shapes, 0, held_at_once(recipe)).bytes,
            0,
            results,
        ),
    )
