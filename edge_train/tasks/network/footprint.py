"""What a run of task network holds, counted from its network's shapes and its data."""

import math

from edge_train.formats.learned_tasks import LearnedTasks
from edge_train.formats.network import Network, operations, parameter_shapes
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    state_line,
)
from edge_train.methods import held_at_once, methods
from edge_train.methods.method import BLOCKS
from edge_train.protocols import Transform
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.tasks.network import TASK
from edge_train.tasks.network.continual import Next
from edge_train.tasks.network.datasets import Dataset
from edge_train.tasks.network.kept import bases_bytes, makes_bases
from edge_train.tasks.network.recipe import NetworkRecipe

_COPIES = 2  # of the weights in float32: gradient, what is being written
_KEPT_ITEMS = 12  # bytes of a unit and sample: outputs, what the derivative needs, the error


def footprint_of(
    recipe: NetworkRecipe,
    network: Network,
    data: Dataset,
    rule: Transform,
    *,
    trained_on: int,
    together: int,
    calibrated: int,
    following: Next | None,
) -> Footprint:
    """Return what a run holds.

    Args:
      rule: what makes updates of gradients, with what keeps old tasks.
      trained_on: samples of the training part that are not held out.
      together: samples whose inner activations exist at once.
      calibrated: samples that the statistics of norms are measured on.
      following: the tasks before this one.
    """
    use, blocks = TASK.use(recipe.runtime), network.blocks
    shapes = {
        f"{index}.{name}": shape
        for index, block in enumerate(blocks)
        for name, shape in parameter_shapes(block).items()
    }
    items = sum(map(math.prod, shapes.values()))
    samples = PlanLine("data", sum(part.inputs.nbytes for part in (data.train, data.test)))
    weights = PlanLine("weights", int(quants.get(recipe.quant).weight_bytes * items))
    state = state_line(rule, shapes, _COPIES, held_at_once(recipe))
    widths = [math.prod(block.output_shape) for block in blocks]
    one_by_one = BLOCKS in methods.get(recipe.method).needs
    kept = max(widths) if one_by_one else sum(widths)
    learned = following.before.learned if following else LearnedTasks((), {})
    bases = bases_bytes(network, recipe, learned) if makes_bases(recipe, network) else 0
    old = PlanLine("old tasks", following.nbytes if following else 0)
    before = (old,) if old.bytes else ()
    return Footprint(
        use.libraries,
        weights.bytes,
        {
            PREPARE: (samples, *before),
            TRAIN: (samples, weights, state, *before),
            SAVE: (samples, weights, *before),
        },
        {
            TRAIN: max(_KEPT_ITEMS * together * kept, 4 * calibrated * max(widths)),
            **({SAVE: bases + 4 * items} if bases else {}),
        },
        use.first_use_bytes,
        use.libraries_bytes,
        operations=sum(map(operations, blocks)),
        products=sum(len(shape) > 1 for shape in shapes.values()),
        together=required(recipe.samples),
        evaluated=len(data.train.labels) - trained_on,
        after=len(data.test.labels),
        trained=items,
        folder=folder_lines(
            len(shapes),
            weights.bytes,
            state_line(rule, shapes, 0, held_at_once(recipe)).bytes,
            4 * max(widths) * trained_on if recipe.mode == "sequential" else 0,
            weights.bytes
            + sum(part.nbytes for part in (data.mean, data.deviation))
            + bases
            + recipe.kept_examples * data.test.inputs[:1].nbytes
            + old.bytes,
        ),
    )
