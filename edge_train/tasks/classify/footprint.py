"""What a run of task classify holds, counted from its model's shapes and its texts."""

import math

from edge_train.export.difference import workspace_bytes
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    lines_of,
    state_line,
)
from edge_train.methods import held_at_once, selection_bytes
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.runtimes.torch.calls import TEXTS_PER_CALL
from edge_train.tasks.classify import TASK
from edge_train.tasks.classify.model import (
    Model,
    Shapes,
    network_module,
    operations_of,
    shapes_of,
)
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.texts import LabeledTexts

_PROMPT_BYTES = 1_000_000  # of a prompt and its text, far more than they take
_SMALL_FILE_BYTES = 30_000_000  # a larger one holds weights
# Kept of a small BERT, in bytes per token and root of the weights: a rehearsal less all else.
_KEPT_BYTES = {"torch": 18, "ort-training": 88}
_COPIES = 4  # of the trained blocks in float32: live, gradient, update, what is being written


def footprint_of(
    recipe: ClassifyRecipe,
    model: Model,
    trained: Shapes,
    rule: Transform,
    texts: LabeledTexts,
    *,
    labels: int,
    searches: bool,
) -> Footprint:
    """Return what a run holds, without loading the model.

    Args:
      recipe: with the length of the texts.
      trained: shapes of the blocks that training changes.
      labels: outputs of the model, once the data are known.
      searches: whether a prompt is searched, so that no weights are written.
    """
    shapes = shapes_of(model)
    items, numbers = _count(shapes), _count(trained)
    weights = PlanLine("weights", 4 * items)
    state = state_line(rule, trained, _COPIES, held_at_once(recipe))
    together = min(recipe.batch_limit or 4096, required(recipe.samples))
    tokens = together * required(recipe.length)
    # each weight meets each token once; what a layer keeps grows with the root of its size
    kept = int(_KEPT_BYTES[recipe.runtime] * tokens * math.sqrt(items))
    width = max(min(shape) for shape in shapes.values() if len(shape) == 2)
    chooses = selection_bytes(recipe, (labels, width), 1)
    use = TASK.use(recipe.runtime)
    libraries = use.libraries
    if isinstance(model, ClassifierFolder):
        libraries = (*libraries, *network_module(model))
    return Footprint(
        libraries,
        weights.bytes,
        {
            PREPARE: (),
            TRAIN: (weights, state, *lines_of(PlanLine("batch selection", chooses.all))),
            SAVE: (weights, state),
        },
        {TRAIN: kept, SAVE: workspace_bytes(recipe.difference_rank or 0, shapes)},
        use.first_use_bytes,
        use.libraries_bytes,
        operations=operations_of(shapes, required(recipe.length)),
        products=sum(len(shape) > 1 for shape in shapes.values()),
        together=recipe.batch_limit or TEXTS_PER_CALL,
        after=len(texts.test or texts.dev),
        trained=numbers,
        folder=folder_lines(
            len(trained),
            4 * numbers,
            state_line(rule, trained, 0, held_at_once(recipe)).bytes + chooses.kept,
            _texts_bytes(recipe, texts),
            _PROMPT_BYTES if searches else _result_bytes(recipe, model, shapes),
        ),
    )


def _count(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


def _texts_bytes(recipe: ClassifyRecipe, texts: LabeledTexts) -> int:
    """Return what the run folder keeps of the texts: ids, a count and a label of each."""
    parts = (texts.train, texts.dev, texts.test)
    return 4 * (int(required(recipe.length)) + 2) * sum(map(len, parts))


def _result_bytes(recipe: ClassifyRecipe, model: Model, shapes: Shapes) -> int:
    """Return what the model folder, adapters and the difference hold."""
    rank = (recipe.difference_rank or 0) + (recipe.rank or 0)
    matrices = sum(sum(shape) for shape in shapes.values() if len(shape) > 1)
    small = [path.stat().st_size for path in model.path.iterdir() if path.is_file()]
    tokenizer = sum(size for size in small if size < _SMALL_FILE_BYTES)
    return 4 * (_count(shapes) + rank * matrices) + tokenizer
