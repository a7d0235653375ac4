"""The mean of the last iterates as the result: the last update of a run lands on it."""

from dataclasses import dataclass

import numpy as np

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State

SHARE = 0.25  # of a run's steps: those whose iterates are averaged


@dataclass(frozen=True)
class TailMean:
    """Turns the last update of a run into one that ends at the mean of its last iterates.

    Iterates of noisy steps lie around the answer, and their mean is nearer to it than the last one
    is. The update of every step before the last goes on as it came. It stands last in a chain,
    after the rate. It counts updates: in a run that skipped a step the last one is as it came.

    Args:
      spans: (updates before it, steps in all): the length of the run, and what it became where it
        was made longer. Averaged is the last quarter of what the newest span adds.
      fits: of a run with a time, or of one that ends where gradients are noise (updates before it,
        steps in all): where a span ends instead. A sum that has begun goes on, whatever the steps
        come to.

    Bytes: 4 per coordinate.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992). We
    differ in averaging the end alone, with the rate on its way to zero.
    """

    spans: tuple[tuple[int, int], ...]
    fits: tuple[tuple[int, int], ...] = ()

    def init(self, param: Array) -> State:
        """Return a zero sum and zero counts, of steps and of iterates in the sum."""
        return {
            "sum": np.zeros(param.shape, param.dtype),
            "count": np.zeros(1, np.int64),
            "summed": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the update, or at an end what lands on the mean."""
        update = dense(update)
        state["count"] += 1
        count = int(state["count"][0])
        start, end = [span for span in self.spans if span[0] < count][-1]
        for after, steps in self.fits:
            end = steps if start <= after < count else end
        if count == start + 1:  # a run that was made longer before its end had begun a sum
            state["sum"][...] = 0
            state["summed"][0] = 0
        in_tail = end - SHARE * (end - start) < count <= end
        if not (in_tail or (self.fits and state["summed"][0] and count <= end)):
            return update
        state["sum"] += param
        state["sum"] -= update
        state["summed"] += 1
        if count < end:
            return update
        mean: Array = np.divide(state["sum"], state["summed"][0], dtype=np.float32)
        return param - mean
