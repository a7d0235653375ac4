"""Adam whose moments take one byte each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.factored import Factors, Parts, Streamed, Update, Whole, dense
from edge_train.protocols import Array, State
from edge_train.rng import Key
from edge_train.transforms import Adam

BLOCK = 256  # moments that share a scale: 8 + 32 / 256 = 8.125 bits each
SMALLEST = 4096  # coordinates; smaller blocks of parameters keep float32, as everyone does
_AT_ONCE = 256 * BLOCK  # moments in float32 at any instant
_FIRST_OCTAVES, _SECOND_OCTAVES = 16, 32  # from the largest moment of a block to the smallest


def _levels(count: int, octaves: int) -> Array:
    """Return what codes 0..count stand for: zero, then equal ratios up to 1; and a fence."""
    ratios = np.exp2(-octaves * (count - np.arange(count + 2)) / (count - 1))
    return np.where(np.arange(count + 2) == 0, 0, ratios).astype(np.float32)


_FIRST, _SECOND = _levels(127, _FIRST_OCTAVES), _levels(255, _SECOND_OCTAVES)
_SIGNED = np.concatenate([-_FIRST[128:0:-1], _FIRST])  # by code + 128


@dataclass(frozen=True)
class Adam8bit:
    """Adam with bias correction; moments in 8 bits, one scale for each block of 256.

    Codes are 9 % apart, so every coordinate has the same relative precision; linear ones would turn
    small second moments into zeros, and the division by their root into an explosion. They are
    rounded at random, right on average: with beta2 = 0.999 a second moment falls by 0.1 % a step at
    most and would never fall if it were rounded to the nearest code. What this costs is noise of
    about a tenth in each coordinate of the update. The draws are a function of the count. A second
    moment is never rounded down to zero.
    Bytes: 2.03 per coordinate. Memory: 65,536 coordinates in float32, a few times.

    Source: Dettmers et al. (arXiv:2110.02861). We differ in the codes (a logarithm, where theirs
    are a table that a CPU would have to search) and in the random rounding.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, param: Array) -> State:
        """Return zero moments and a zero count."""
        if param.size < SMALLEST:
            return self._float().init(param)
        blocks = -(-param.size // BLOCK)
        return {
            "first": np.zeros(param.size, np.int8),
            "first_scale": np.zeros(blocks, np.float32),
            "second": np.zeros(param.size, np.uint8),
            "second_scale": np.zeros(blocks, np.float32),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array | Streamed:
        """Return the bias-corrected ratio of the moments, of factors in rows."""
        if "first_scale" not in state:
            return self._float().update(update, state, param)
        state["count"] += 1
        draw = Key(0, int(state["count"][0])).generator("rounding")
        if isinstance(update, Factors | Whole):
            return Streamed(update.shape, self._stream(update, state, draw))
        gradient = dense(update)
        return self._moved(gradient.reshape(-1), 0, state, draw).reshape(gradient.shape)

    def _stream(self, gradient: Factors | Whole, state: State, draw: np.random.Generator) -> Parts:
        width = gradient.shape[1]
        for rows, part in gradient.parts(BLOCK // math.gcd(BLOCK, width)):  # whole blocks
            moved = self._moved(part.reshape(-1), rows.start * width, state, draw)
            yield rows, moved.reshape(part.shape)

    def _moved(self, flat: Array, start: int, state: State, draw: np.random.Generator) -> Array:
        """Return the ratio for coordinates from `start` on, which begins a block."""
        count = int(state["count"][0])
        first_left, second_left = 1 - self.beta1**count, 1 - self.beta2**count
        result = np.empty(flat.size, np.float32)
        for own, _ in _tiles(flat.size):
            gradient = flat[own]
            at = slice(start + own.start, start + own.stop)
            blocks = slice(at.start // BLOCK, -(-at.stop // BLOCK))
            first, second = _read_first(state, at, blocks), _read_second(state, at, blocks)
            first += np.float32(1 - self.beta1) * (gradient - first)
            second += np.float32(1 - self.beta2) * (gradient * gradient - second)
            root = np.sqrt(second / np.float32(second_left))
            result[own] = first / np.float32(first_left) / (root + np.float32(self.epsilon))
            _write_first(state, at, blocks, first, draw)
            _write_second(state, at, blocks, second, draw)
        return result

    def rotate(self, state: State, rotation: Array) -> None:
        """Express moments of rows in another basis; see `low_rank.Moments`."""
        if "first_scale" not in state:
            self._float().rotate(state, rotation)
            return
        draw = Key(0, int(state["count"][0])).generator("rotation")
        everything, blocks = slice(0, state["first"].size), slice(0, len(state["first_scale"]))
        shape = (-1, rotation.shape[1])
        first = _read_first(state, everything, blocks).reshape(shape) @ rotation.T
        second = _read_second(state, everything, blocks).reshape(shape) @ np.square(rotation).T
        _write_first(state, everything, blocks, first.reshape(-1), draw)
        _write_second(state, everything, blocks, second.reshape(-1), draw)

    def _float(self) -> Adam:
        return Adam(self.beta1, self.beta2, self.epsilon)


def _tiles(size: int) -> Iterator[tuple[slice, slice]]:
    """Yield (coordinates, their blocks), a few at a time."""
    for start in range(0, size, _AT_ONCE):
        end = min(start + _AT_ONCE, size)
        yield slice(start, end), slice(start // BLOCK, -(-end // BLOCK))


def _read_first(state: State, at: slice, blocks: slice) -> Array:
    codes = state["first"][at]
    scale = _spread(state["first_scale"][blocks], len(codes))
    values: Array = _SIGNED[codes.astype(np.int16) + 128] * scale
    return values


def _read_second(state: State, at: slice, blocks: slice) -> Array:
    codes = state["second"][at]
    values: Array = _SECOND[codes] * _spread(state["second_scale"][blocks], len(codes))
    return values


def _write_first(
    state: State, at: slice, blocks: slice, values: Array, draw: np.random.Generator
) -> None:
    sizes = np.abs(values)
    state["first_scale"][blocks] = scale = _largest(sizes)
    codes = _rounded(sizes, scale, _FIRST, _FIRST_OCTAVES, draw)
    state["first"][at] = np.where(values < 0, -codes, codes)


def _write_second(
    state: State, at: slice, blocks: slice, values: Array, draw: np.random.Generator
) -> None:
    state["second_scale"][blocks] = scale = _largest(values)
    codes = _rounded(values, scale, _SECOND, _SECOND_OCTAVES, draw)
    state["second"][at] = np.maximum(codes, values > 0)


def _rounded(
    values: Array, scale: Array, levels: Array, octaves: int, draw: np.random.Generator
) -> NDArray[np.int16]:
    """Return the code below or above each value >= 0, such that its level is right on average."""
    share = values / _spread(np.where(scale > 0, scale, 1), len(values))
    count = len(levels) - 2
    with np.errstate(divide="ignore"):  # the logarithm of zero ends at code 0
        place = np.log2(share) * np.float32((count - 1) / octaves) + np.float32(count)
    codes = np.clip(place, 0, count).astype(np.int16)
    below, above = levels[codes], levels[codes + 1]
    codes += draw.random(len(values), np.float32) * (above - below) < share - below
    within: NDArray[np.int16] = np.minimum(codes, np.int16(count))
    return within


def _largest(values: Array) -> Array:
    """Return the largest value of every block."""
    largest: Array = np.maximum.reduceat(values, np.arange(0, len(values), BLOCK))
    return largest


def _spread(scale: NDArray[np.float32], size: int) -> Array:
    """Return one scale for every coordinate of the blocks."""
    return scale.repeat(BLOCK)[:size]
