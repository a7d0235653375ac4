"""Batches of clouds in epochs, some held out, each with a number that its directions follow."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Runtime
from edge_train.rng import Key, sample_seeds

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.1, 200
# Of fewer clouds that were held out their scores do not tell how much scores differ: those of so
# many clouds that were trained on count, too.
FEW_HELD_OUT, MORE_SCORED = 10, 100


class Reconstruction:
    """An `Objective`: clouds that come back as they were.

    Args:
      clouds: (clouds, points, 3).
      seed: of the run; the order of an epoch is a function of it.
      samples: clouds of a step.
      held_out: how many are evaluated and never trained on; None: a tenth, at most 200.
    """

    def __init__(self, clouds: Array, seed: int, samples: int, held_out: int | None) -> None:
        count = len(clouds)
        aside = held_out or min(_MOST_HELD_OUT, round(_HELD_OUT_SHARE * count))
        aside = min(max(aside, 1), count - 1)
        order = Key(0, 0).generator("held out").permutation(count)
        self.held_out: NDArray[np.int64] = np.sort(order[:aside])
        self.trained: NDArray[np.int64] = np.sort(order[aside:])
        self._clouds, self._samples = clouds, min(samples, len(self.trained))
        self._order = lru_cache(maxsize=1)(
            lambda epoch: Key(seed, epoch).generator("epoch").permutation(len(self.trained))
        )

    def batch(self, key: Key) -> Batch:
        """Return `clouds` (samples, points, 3) and `draws` (samples,)."""
        epoch, part = divmod(key.step, len(self.trained) // self._samples)
        some = self._order(epoch)[part * self._samples : (part + 1) * self._samples]
        return {
            "clouds": self._clouds[self.trained[some]],
            "draws": sample_seeds(key, "slices", self._samples),
        }

    def evaluation(self) -> Batch:
        """Return the clouds that are held out, along the same directions every time."""
        return {
            "clouds": self._clouds[self.held_out],
            "draws": sample_seeds(Key(0, 0), "slices", len(self.held_out)),
        }

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return plain sliced distances, squared, (points, samples)."""
        return runtime.forward(batch, points)
