"""What a classifier makes of pictures under a patch: by one view, and by several together."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.rng import Key

VIEWS = 3
GREY = np.full((1, 1, 3), 128, np.float32)
_NOISE = 64  # colours along a side of a random patch

Rule = Callable[[Array], Array]  # logits (samples, views, classes) -> (samples, classes)
RULES: Mapping[str, Rule] = {
    "one view": lambda logits: logits[:, 0],
    "mean of three": lambda logits: logits.mean(axis=1),
    "median of three": lambda logits: np.median(logits, axis=1),
}


def noise(seed: int) -> Array:
    """Return a patch of random colours, (64, 64, 3) pixels."""
    draw = Key(seed, 0).generator("random patch")
    return draw.uniform(0, 255, (_NOISE, _NOISE, 3)).astype(np.float32)


def accuracies(
    features: Array, head: Callable[[Array], Array], labels: NDArray[np.int64]
) -> dict[str, float]:
    """Return the share of samples that is classified correctly by each rule, and `lead`.

    The lead is the mean logit of the right class less the largest other, by one view.

    Args:
      features: (samples, views, width).
      labels: (samples,).
    """
    samples, views, width = features.shape
    logits = head(features.reshape(-1, width)).reshape(samples, views, -1)
    found = {
        name: float((rule(logits).argmax(axis=1) == labels).mean()) for name, rule in RULES.items()
    }
    one, rows = logits[:, 0].astype(np.float64), np.arange(samples)
    right = one[rows, labels]
    one[rows, labels] = -np.inf
    return {**found, "lead": float((right - one.max(axis=1)).mean())}
