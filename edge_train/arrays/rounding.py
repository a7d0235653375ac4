"""Random bits for rounding, cheap enough for every weight at every step."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.rng import Key

AT_ONCE = 1 << 15  # numbers rounded together; a few arrays of this size fill a second-level cache


class Noise:
    """32 random bits for each number of a matrix that is rounded in parts.

    A step draws one table. A part takes its first numbers and adds one draw of its own to all of
    them, modulo 2^32. So every number is uniform, and any two of them are independent, in one part,
    in two or in two matrices: sums of rounding errors vary as they do with a draw for each number,
    at a tenth of the time. Three and more are not independent.

    Args:
      key: of the step.
      name: of the matrix, whose parts are rounded in one order.
    """

    def __init__(self, key: Key, name: str) -> None:
        self._key, self._name = key, name
        self._parts = 0

    def bits(self, shape: tuple[int, ...]) -> NDArray[np.uint32]:
        """Return those of the next part."""
        size = math.prod(shape)
        shift = np.uint32(self._key.bits("rounding", self._name, self._parts) & 0xFFFFFFFF)
        self._parts += 1
        return (_table(self._key, max(size, AT_ONCE))[:size] + shift).reshape(shape)

    def centered(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return numbers from -0.5 to 0.5: `rint` of a sum with them is right on average."""
        values = self.bits(shape).view(np.int32).astype(np.float32)
        values *= np.float32(2**-32)
        return values

    def own(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return such numbers for what is left of the part, each with a draw of its own."""
        generator = self._key.generator("rounding alone", self._name, self._parts)
        return generator.random(shape, np.float32) - np.float32(0.5)


def largest(values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest number along the last axis; `max` takes about twice the time.

    >>> largest(np.array([[[1, 5], [-2, -3]]])).tolist()
    [[5, -2]]
    """
    starts = np.arange(0, values.size, values.shape[-1])
    return np.maximum.reduceat(values.reshape(-1), starts).reshape(values.shape[:-1])


@lru_cache(maxsize=4)  # weights and moments round in turn
def _table(key: Key, size: int) -> NDArray[np.uint32]:
    raw = key.generator("rounding table").bit_generator.random_raw(-(-size // 2))
    return raw.view(np.uint32)[:size]
