"""Random bits for rounding, cheap enough for every weight at every step."""

import math
from functools import lru_cache

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
        self._key = key
        self._generator = key.generator("rounding", name)

    def bits(self, shape: tuple[int, ...]) -> NDArray[np.uint32]:
        """Return those of the next part."""
        size = math.prod(shape)
        shift = np.uint32(self._generator.bit_generator.random_raw() & 0xFFFFFFFF)
        return (_table(self._key, max(size, AT_ONCE))[:size] + shift).reshape(shape)

    def centered(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return numbers from -0.5 to 0.5: `rint` of a sum with them is right on average."""
        values = self.bits(shape).view(np.int32).astype(np.float32)
        values *= np.float32(2**-32)
        return values

    def own(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return numbers as `centered` does, each with a draw of its own."""
        return self._generator.random(shape, np.float32) - np.float32(0.5)


@lru_cache(maxsize=1)
def _table(key: Key, size: int) -> NDArray[np.uint32]:
    raw = key.generator("rounding table").bit_generator.random_raw(-(-size // 2))
    return raw.view(np.uint32)[:size]
