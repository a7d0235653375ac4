"""A bound on how long a vector may grow: along its own direction a text encoder hardly feels it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State


@dataclass(frozen=True)
class NormLimit:
    """Keeps every row of a block at most `times` as long as the rows were at the start.

    An encoder normalises its inputs, so curvature along a long vector is small, steps by curvature
    are large, and lengths would grow without end: 27 times on the embedded model, and as likely 400
    times. The radius of a perturbation, a share of the start's size, would then be lost in
    rounding.

    Args:
      times: the root mean square of the start.

    Bytes: none but a number; two temporary blocks.

    Source: DTI (ICLR 2026) keeps a token on a sphere; we differ in a ball that is four times as
    large, chosen by trials on two items that no command repeats.
    """

    times: float = 4.0

    def init(self, param: Array) -> State:
        """Return the longest that a row may become."""
        rows = _lengths(param)
        return {"longest": np.array([self.times * np.sqrt(np.mean(rows**2))], np.float64)}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the update, which ends no further out than the bound."""
        moved = param - dense(update)
        lengths = _lengths(moved)
        longest = float(state["longest"][0])
        if longest == 0 or (lengths <= longest).all():
            return dense(update)
        share = (longest / np.maximum(lengths, longest)).astype(np.float32)
        moved *= share[:, None] if moved.ndim > 1 else share
        limited: Array = param - moved
        return limited


def _lengths(block: Array) -> NDArray[np.float64]:
    """Return the length of each row, in float64; of a vector, its own alone."""
    rows = block.reshape(len(block), -1) if block.ndim > 1 else block.reshape(1, -1)
    lengths: NDArray[np.float64] = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return lengths
