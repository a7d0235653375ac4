"""Whether gradients still agree with those before them: where they do not, they are noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State

_MEMORY = 0.9  # of the mean that a gradient is compared with, as long as momentum's
_WINDOW = 60  # cosines that decide
# Gradients before them. A word goes on getting better where they say little: of a digit that the
# embedded model never saw, 3 % of pictures are right after 100 steps and 16 % after 200.
_FIRST = 60
_ERRORS = 1.0  # standard errors by which the mean cosine of a gradient with a way to go is above 0


@dataclass(frozen=True)
class Signal:
    """Lets gradients pass and remembers how each agrees with the mean of those before it.

    With m the running mean of earlier gradients, it keeps c = <m, g> / (|m| |g|) of the newest
    gradients. Each is of fresh samples: while there is a way to go they share a direction, and the
    mean of c is above zero. Where it is not, by its standard error, what is left is noise.
    Of estimates along a few random directions it tells nothing: c scatters by 0.09 around 0.01
    while a word is learned by `zo` (seed 0, `seven`, 500 steps; no command repeats it).

    Bytes: 4 per coordinate, and the cosines.

    Source: Pflug, "Non-asymptotic confidence bounds for stochastic approximation algorithms with
    constant step size" (1990), who adds up products of neighbours. We differ in a mean in the place
    of one neighbour, cosines, and a window.
    """

    def init(self, param: Array) -> State:
        """Return a zero mean, no cosines and a zero count."""
        return {
            "mean": np.zeros(param.shape, param.dtype),
            "cosines": np.zeros(_WINDOW, np.float64),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the gradient as it came; remember how it agrees."""
        update = dense(update)
        mean, count = state["mean"], int(state["count"][0])
        lengths = _length(mean) * _length(update)
        state["cosines"][count % _WINDOW] = _product(mean, update) / lengths if lengths else 0.0
        mean *= np.float32(_MEMORY)
        mean += np.float32(1 - _MEMORY) * update
        state["count"] += 1
        return update

    def is_noise(self, state: State) -> bool:
        """Return whether the newest gradients share no direction."""
        cosines: NDArray[np.float64] = state["cosines"]
        if state["count"][0] < _FIRST + _WINDOW:
            return False
        error = float(cosines.std(ddof=1)) / np.sqrt(_WINDOW)
        return bool(cosines.mean() <= _ERRORS * error)


def _product(first: Array, second: Array) -> float:
    return float(np.sum(first * second, dtype=np.float64))


def _length(block: Array) -> float:
    return float(np.sqrt(np.sum(np.square(block, dtype=np.float64))))
