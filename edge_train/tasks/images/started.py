"""A head that an earlier run learned, as the start of one that may have more classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.tasks.images.classifier_file import Classifier
from edge_train.tasks.images.heads import Shape, heads, stages_of


def learned_values(
    before: Classifier,
    start: Mapping[str, Array],
    head: str,
    shape: Shape,
    classes: Sequence[str],
    trained_blocks: int = 0,
) -> dict[str, Array]:
    """Return start values in which all that was learned stands; classes are found by name.

    Args:
      before: the earlier head.
      start: values of a head of the new shape, which new classes keep.

    Raises:
      InputError: it is another head, or reads other features.
    """
    wants = (head, shape.width, shape.size)
    has = (before.head, before.shape.width, before.shape.size)
    if wants != has:
        raise InputError(
            f"--from: a {before.head} head of {before.shape.width} features and size "
            f"{before.shape.size} cannot start a {head} head of {shape.width} and {shape.size}; "
            "name the same --head, --head-size and --model."
        )
    if before.trained_blocks != trained_blocks:
        raise InputError(
            f"--from: a run with --trained-blocks {before.trained_blocks} cannot start one with "
            f"{trained_blocks}; name as many."
        )
    old = {name: number for number, name in enumerate(before.classes)}
    found = {name: np.array(before.parameters[name]) for name in start}
    for name in _by_class(head, shape):
        rows = np.array(start[name])
        for number, one in enumerate(classes):
            if one in old:
                rows[number] = found[name][old[one]]
        found[name] = rows
    return found


def _by_class(head: str, shape: Shape) -> list[str]:
    """Return the names of parameters that have a row for each class: those that grow with them."""

    def sides_of(one: Shape) -> dict[str, tuple[int, ...]]:
        stages = stages_of(heads.get(head), one)
        return {
            f"{own.name}.{name}": sides for own in stages for name, sides in own.shapes().items()
        }

    now, then = sides_of(shape), sides_of(replace(shape, classes=shape.classes + 1))
    return [name for name in now if now[name] != then[name]]
