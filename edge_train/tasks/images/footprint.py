"""What a run of task images holds, counted from its backbone, its head and its list of pictures."""

import math
from collections.abc import Mapping, Sequence

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
from edge_train.methods.method import FORWARD
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.tasks.images import TASK
from edge_train.tasks.images.backbone import Backbone
from edge_train.tasks.images.features import Sample
from edge_train.tasks.images.heads import Shape
from edge_train.tasks.images.objective import TOGETHER
from edge_train.tasks.images.recipe import ImagesRecipe
from edge_train.tasks.images.unknowns import references_of

_GRADIENT_COPIES, _FORWARD_COPIES = 2, 2  # of the head in float32
# Measured of EfficientNet-Lite0 on ONNX Runtime: bytes of a call for each pixel of its picture, and
# what a session holds, in the size of its weights.
_CALL_BYTES, _SESSION_COPIES = 600, 2.0
# rows whose activations the trained blocks hold, and how many numbers they are for one of a row
_TAIL_ROWS, _TAIL_COPIES = 8, 40
_DECODED_BYTES = 4  # a pixel of a picture while it is read; what is more is drafted by the reader
# Operations of a picture, roughly, by what files tell: each weight is used at so many places of a
# picture of 224 pixels (85 in EfficientNet-Lite0, 160 in ResNet-50, 197 in ViT of 16 pixels), and
# reading, cropping and resizing take as long as so many operations (20 ms, measured).
_PLACES, _PLACES_SIDE, _READING = 150, 224, 1e9
_MOST_DECODED = 16_000_000  # pixels; a JPEG with more is decoded smaller


def footprint_of(
    recipe: ImagesRecipe,
    backbone: Backbone,
    shape: Shape,
    shapes: Mapping[str, tuple[int, ...]],
    rule: Transform,
    pictures: Sequence[Sample],
    *,
    judged: int,
    largest: int,
) -> Footprint:
    """Return what a run holds.

    Args:
      shape: of the head, `shapes` of its parameters.
      rule: what makes updates of gradients.
      judged: pictures that are held out.
      largest: pixels of the largest picture.
    """
    use = TASK.use(backbone.engine)
    items = sum(map(math.prod, shapes.values()))
    rows = sum(sample.views for sample in pictures)
    names = PlanLine("list of pictures", 1000 * len(pictures))
    weights = PlanLine("head", 4 * items)
    network = PlanLine("backbone", int(_SESSION_COPIES * backbone.weight_bytes))
    forward = methods.get(recipe.method).needs == {FORWARD}
    copies = _FORWARD_COPIES if forward else _GRADIENT_COPIES
    state = state_line(rule, shapes, copies, held_at_once(recipe))
    samples = required(recipe.samples)
    widest = max(shape.width, shape.size, shape.classes)
    held = max(TOGETHER, samples) * 4 * (2 * backbone.row + 4 * (widest + shape.classes))
    tail_bytes = 0
    if backbone.trained:
        weights = PlanLine("head and trained blocks", 4 * items)
        tail_bytes = backbone.weight_bytes + _TAIL_ROWS * _TAIL_COPIES * 4 * backbone.row
        held += tail_bytes
    call = backbone.side**2 * _CALL_BYTES
    decoded = _DECODED_BYTES * min(largest, _MOST_DECODED)
    references = 4 * references_of(shape.classes) * shape.classes * backbone.row
    return Footprint(
        use.libraries,
        backbone.weight_bytes,
        {PREPARE: (names, network), TRAIN: (names, weights, state), SAVE: (names, weights)},
        {PREPARE: call + decoded, TRAIN: held, SAVE: held + 3 * references + decoded},
        use.first_use_bytes,
        use.libraries_bytes,
        operations=2 * items,
        products=len(shapes),
        together=samples,
        evaluated=judged,
        before=rows,
        before_operations=_READING
        + 2 * (backbone.weight_bytes / 4) * _PLACES * (backbone.side / _PLACES_SIDE) ** 2,
        trained=items,
        folder=folder_lines(
            len(shapes),
            4 * items,
            state_line(rule, shapes, 0, held_at_once(recipe)).bytes,
            4 * rows * backbone.row + 200 * len(pictures),
            4 * (items + backbone.row) + references,
        ),
    )
