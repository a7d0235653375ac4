"""Weights in 8 or 4 bits: integers around zero, and a scale for each group of them in a row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

Levels = NDArray[np.int8]

_SMALLEST = {np.float32: 1e-12, np.float16: 2.0**-24}


@dataclass(frozen=True)
class Code:
    """How rows of a matrix are stored: value = scale * level, level in [-most, most].

    Symmetric, so zero stays zero, and a group of one sign or one value is as good as any other.

    Args:
      bits: 8, or 4 with two levels a byte: column j of the first half of a row in the low nibble of
        byte j, that of the second half in the high one, so that both are read in one piece.
      group: neighbors that share a scale; 0 for a whole row. Rows are filled up with zeros.
      scale: type of the scales.
      headroom: a new scale leaves this much room to grow, since the next one rounds all levels
        again. Of 15 levels none can be spared: with 1.0 a largest value is a level, to 11 bits,
        and scales follow it from step to step.
    """

    bits: int
    group: int
    scale: type[np.float32] | type[np.float16]
    headroom: float

    @property
    def most(self) -> int:
        """The largest level."""
        return (1 << self.bits - 1) - 1

    @property
    def follows(self) -> bool:
        """Whether a scale follows the largest value of its group, since it has no room to grow."""
        return self.headroom == 1

    def empty(self, rows: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return storage of a matrix: levels, and scales (rows,) or (rows, groups)."""
        if self.bits == 8:
            return np.zeros((rows, width), np.int8), np.full(rows, 1, self.scale)
        groups = -(-width // self.group)
        codes = np.zeros((rows, groups * self.group // 2), np.uint8)
        return codes, np.full((rows, groups), 1, self.scale)

    def nbytes(self, rows: int, width: int) -> int:
        """Return the bytes of that storage.

        >>> INT8.nbytes(2, 100), INT4.nbytes(2, 100)
        (208, 144)
        """
        groups = -(-width // self.group) if self.group else 1
        padded = groups * (self.group or width)
        return rows * (padded * self.bits // 8 + groups * np.dtype(self.scale).itemsize)

    def levels(self, codes: NDArray[Any]) -> Levels:
        """Return levels (rows, padded width), one a byte."""
        if self.bits == 8:
            return codes
        half = codes.shape[1]
        levels = np.empty((len(codes), 2 * half), np.int8)
        np.right_shift((codes << 4).view(np.int8), 4, out=levels[:, :half])
        np.right_shift(codes.view(np.int8), 4, out=levels[:, half:])
        return levels

    def store(self, levels: NDArray[Any], codes: NDArray[Any]) -> None:
        """Write levels (rows, padded width), whole numbers of any type, to their storage."""
        if self.bits == 8:
            codes[:] = levels
            return
        half = codes.shape[1]
        raw = levels.astype(np.int8).view(np.uint8)
        np.bitwise_or(raw[:, :half] & 15, raw[:, half:] << 4, out=codes)

    def grouped(self, values: Array) -> Array:
        """Return (rows, width) as (rows, groups, group); a copy where zeros are added."""
        rows, width = values.shape
        group = self.group or width
        if missing := -width % group:
            values = np.pad(values, ((0, 0), (0, missing)))
        return values.reshape(rows, -1, group)

    def values(self, codes: NDArray[Any], scales: NDArray[Any]) -> Array:
        """Return values (rows, padded width)."""
        wide = scales.astype(np.float32).reshape(len(codes), -1)
        if self.group:
            wide = wide.repeat(self.group, axis=1)
        values: Array = self.levels(codes) * wide
        return values

    def new_scale(self, largest: NDArray[Any]) -> NDArray[Any]:
        """Return scales for groups whose largest magnitudes are given; never zero or infinite."""
        scale = np.asarray(largest * (self.headroom / self.most))
        return np.clip(scale, _SMALLEST[self.scale], np.finfo(self.scale).max).astype(self.scale)

    def near_scales(self, largest: Array) -> tuple[NDArray[Any], NDArray[Any], Array]:
        """Return the scales on both sides of those that make the largest values a level.

        Returns:
          Scales not above and scales above, and how far from the one to the other the right ones
          lie, from 0 to 1.
        """
        most = np.nextafter(np.finfo(self.scale).max, self.scale(0))
        wanted = np.clip(largest / np.float32(self.most), _SMALLEST[self.scale], most)
        near = wanted.astype(self.scale)
        below = np.where(near > wanted, np.nextafter(near, self.scale(0)), near)
        above = np.nextafter(below, self.scale(np.inf))
        start = below.astype(np.float32)
        return below, above, (wanted - start) / (above.astype(np.float32) - start)


INT8 = Code(bits=8, group=0, scale=np.float32, headroom=1.25)
INT4 = Code(bits=4, group=32, scale=np.float16, headroom=1.0)
