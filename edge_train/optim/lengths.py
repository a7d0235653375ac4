"""The length of a step's gradient, from blocks that come one at a time and are let go."""

import math

import numpy as np

from edge_train.arrays.factored import Factors, Gradient, Update
from edge_train.arrays.types import Array, State
from edge_train.optim.sums import Sums
from edge_train.protocols import Share, Transform

_TILE = 1 << 16  # coordinates that exist a second time, squared


class Lengths:
    """Adds up the squares of every block's gradient in a step.

    Of an array all numbers are squared. Of `Factors` the length follows from their inner products,
    or from their product a few rows at a time, whichever multiplies less. Of a batch in parts it is
    that of the sum; where a rule keeps only a projection of the parts (`Projecting`), that of the
    projection's sum, which is at most as long.

    Args:
      factors: whether factors are measured: that takes products. Without them the norm of a step
        that had any is not known.
    """

    def __init__(self, *, factors: bool) -> None:
        self._factors = factors
        self._total = 0.0
        self._known = True
        self._sums = Sums()

    def add(self, gradient: Update) -> None:
        """Count the whole gradient of a block."""
        if isinstance(gradient, np.ndarray):
            self._total += squares(gradient)
        elif isinstance(gradient, Factors) and self._factors:
            self._total += gradient.norm() ** 2
        else:
            self._known = False

    def add_part(
        self, name: str, part: Gradient | Share, rule: Transform, state: State, param: Array
    ) -> None:
        """Count the gradient of a block, or keep a part of it until the last one has come."""
        if not isinstance(part, Share):
            self.add(part)
        elif (total := self._sums.total(name, part, rule, state, param)) is not None:
            self.add(total)

    @property
    def norm(self) -> float | None:
        """The length so far; None where it is not known, or too large for a float."""
        norm = math.sqrt(self._total) if self._known else math.inf
        return norm if math.isfinite(norm) else None


def squares(block: Array) -> float:
    """Return the sum of squares, the same for any number of threads, without a copy of the block.

    >>> squares(np.array([[3.0], [4.0]], np.float32))
    25.0
    """
    flat = block.reshape(-1)
    parts = (flat[start : start + _TILE] for start in range(0, flat.size, _TILE))
    with np.errstate(over="ignore"):
        return sum(float(np.square(part).sum(dtype=np.float64)) for part in parts)
