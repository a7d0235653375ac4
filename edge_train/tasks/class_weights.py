"""What samples of each class count in training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError

BALANCED = "balanced"
_SHOWN = 5  # names in a message


def class_weights(
    text: str, labels: NDArray[np.integer], names: Sequence[str]
) -> NDArray[np.float32]:
    """Return a weight for each class: `balanced`, or the numbers that a user gave.

    Balanced ones are samples / (classes * samples of the class), as scikit-learn's: rare classes
    count as much as frequent ones, and the mean over the samples is 1. The loss of a sample is
    multiplied by its class's weight and the mean over the batch is trained; nothing is divided by
    the sum of weights, so that parts of a batch add up.

    Args:
      labels: class numbers of the training samples.
      names: of the classes.

    Raises:
      InputError: it is neither, or has another number of weights than there are classes.
    """
    counts = np.bincount(labels, minlength=len(names))
    if text.strip() == BALANCED:
        there = counts > 0
        found = np.ones(len(names))
        found[there] = counts.sum() / (there.sum() * counts[there])
        return found.astype(np.float32)
    try:
        found = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise InputError(
            f"class_weights = {text!r} is neither 'balanced' nor numbers such as '1,2.5'."
        ) from None
    if len(found) != len(names):
        shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
        raise InputError(
            f"class_weights has {len(found)} numbers, the data has {len(names)} classes ({shown}); "
            "give one for each, in this order."
        )
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise InputError(f"class_weights = {text!r}: weights are 0 or more, one is above 0.")
    return found.astype(np.float32)
