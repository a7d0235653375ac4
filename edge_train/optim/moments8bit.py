"""Moments in a byte each: one scale for a block of 256, codes that are floats of few bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.rounding import Noise, largest
from edge_train.arrays.types import Array, State

BLOCK = 256  # moments that share a scale: 8 + 32 / 256 = 8.125 bits each
_MANTISSA = 3  # bits of a code: eight levels from one power of two to the next
_DROPPED = 23 - _MANTISSA  # bits of a float32 that a code leaves out
_ONE = 127 << _MANTISSA  # what is left of 1.0
_ROOM = np.float32(1 + 2.0**-15)  # of a scale, so that no rounding goes beyond the last code
_SMALLEST_SCALE = np.float32(2.0**-126)  # below, a float32 has no inverse


class Codes:
    """Codes 0..count of values from 0 to 1: the floats of few bits that end at 1, moved to zero.

    A value is moved up by the first of them, F, and its code is that of the next float below or
    above. So zero is a level, levels are even up to about F and 6 to 12 % apart beyond, and between
    two of them the bits of the moved value count up evenly.
    """

    def __init__(self, count: int) -> None:
        first = np.array([_ONE - count], np.uint32) << np.uint32(_DROPPED)
        self.first = first.view(np.float32)[0]
        self.base = np.uint32(_ONE - count)

    def values(self, codes: NDArray[Any]) -> Array:
        """Return what codes >= 0 stand for."""
        bits = codes.astype(np.uint32)
        bits += self.base
        bits <<= np.uint32(_DROPPED)
        values = bits.view(np.float32)
        values -= self.first
        return values

    def rounded(self, values: Array, scale: Array, noise: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Return a neighboring code of each value >= 0, such that its level is right on average.

        Random bits are added to those that are cut off, and carry with the probability of what is
        cut off.

        Args:
          values: (blocks, BLOCK), overwritten.
          scale: (blocks, 1), at least `_ROOM` times their largest values and `_SMALLEST_SCALE`.
          noise: 32 random bits for each, overwritten.
        """
        values *= 1 / scale
        values += self.first
        noise >>= np.uint32(32 - _DROPPED)
        noise += values.view(np.uint32)
        noise >>= np.uint32(_DROPPED)
        noise -= self.base
        return noise.astype(np.uint8)


FIRST, SECOND = Codes(127), Codes(255)  # evenly below 2^-15.9 and 2^-31.9


def blocks(flat: Array, factor: float) -> Array:
    """Return numbers times a factor in rows of a block each; the last one ends with zeros."""
    if flat.size % BLOCK == 0:
        return np.float32(factor) * flat.reshape(-1, BLOCK)
    rows = np.zeros((-(-flat.size // BLOCK), BLOCK), np.float32)
    np.multiply(flat, np.float32(factor), out=rows.reshape(-1)[: flat.size])
    return rows


def read(state: State, name: str, at: slice, factor: float = 1.0) -> Array:
    """Return moments times a factor."""
    codes = state[name][at]
    values = _signed(codes) if name == "first" else SECOND.values(codes)
    values *= np.float32(factor) * state[f"{name}_scale"][at]
    return values


def _signed(codes: NDArray[np.int8]) -> Array:
    """Return what codes of first moments stand for; the negative code is the negative value."""
    signs = codes >> 7
    values = FIRST.values((codes ^ signs) - signs)
    bits = values.view(np.int32)
    bits |= signs.astype(np.int32) << np.int32(31)
    return values


def _scale(values: Array) -> Array:
    """Return the scale of each block, (blocks, 1), of values >= 0."""
    return np.maximum(_ROOM * largest(values)[:, None], _SMALLEST_SCALE)


def write_first(state: State, at: slice, first: Array, draw: Noise) -> None:
    """Round blocks of means to codes; `first` is overwritten."""
    signs = -(first < 0).view(np.int8)
    np.abs(first, out=first)
    state["first_scale"][at] = scale = _scale(first)
    codes = FIRST.rounded(first, scale, draw.bits(first.shape)).view(np.int8)
    state["first"][at] = (codes ^ signs) - signs  # the negative where a sign is -1


def write_second(state: State, at: slice, second: Array, draw: Noise) -> None:
    """Round blocks of mean squares to codes, none down to zero; `second` is overwritten."""
    state["second_scale"][at] = scale = _scale(second)
    positive = second > 0
    kept = SECOND.rounded(second, scale, draw.bits(second.shape))
    state["second"][at] = np.maximum(kept, positive)
