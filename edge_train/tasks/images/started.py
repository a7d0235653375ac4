"""A head that an earlier run learned, as the start of one that may have more classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.tasks.images.classifier_file import Classifier
from edge_train.tasks.images.heads import Shape


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
    found = {}
    for name, values in start.items():
        learned = before.parameters[name]
        if learned.shape == values.shape and tuple(before.classes) == tuple(classes):
            found[name] = np.array(learned)
        elif len(values) == len(classes) and len(learned) == len(old):  # a row a class
            found[name] = np.array(values)
            for number, one in enumerate(classes):
                if one in old:
                    found[name][number] = learned[old[one]]
        else:
            found[name] = np.array(learned)
    return found
