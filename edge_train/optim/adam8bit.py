"""Adam whose moments take one byte each."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Factors, Parts, Streamed, Update, Whole, dense
from edge_train.arrays.rounding import AT_ONCE, Noise, largest
from edge_train.arrays.types import Array, State
from edge_train.optim.transforms import Adam
from edge_train.rng import Key

BLOCK = 256  # moments that share a scale: 8 + 32 / 256 = 8.125 bits each
SMALLEST = 4096  # coordinates; smaller blocks of parameters keep float32, as everyone does
_MANTISSA = 3  # bits of a code: eight levels from one power of two to the next
_DROPPED = 23 - _MANTISSA  # bits of a float32 that a code leaves out
_ONE = 127 << _MANTISSA  # what is left of 1.0
_ROOM = np.float32(1 + 2.0**-15)  # of a scale, so that no rounding goes beyond the last code
_SMALLEST_SCALE = np.float32(2.0**-126)  # below, a float32 has no inverse


class _Codes:
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


_FIRST, _SECOND = _Codes(127), _Codes(255)  # evenly below 2^-15.9 and 2^-31.9


@dataclass(frozen=True)
class Adam8bit:
    """Adam with bias correction; moments in 8 bits, one scale for each block of 256.

    Codes are floats of few bits, 6 to 12 % apart (of equal distance near zero), so coordinates of
    any size have about the same relative precision; linear ones would turn small second moments
    into zeros, and the division by their root into an explosion. They are rounded at random, right
    on average: with beta2 = 0.999 a second moment falls by 0.1 % a step at most and would never
    fall if it were rounded to the nearest code. What this costs is noise of about a tenth in each
    coordinate of the update. The draws are a function of seed, block and count, so that they
    are not the same in two blocks, whose errors would add up. A second moment is never rounded down
    to zero.
    Bytes: 2.03 per coordinate. Memory: 32,768 coordinates in float32, a few times.

    Args:
      seed: of the run.
      block: whose moments these are; `rule` fills it in.

    Source: Dettmers et al. (arXiv:2110.02861). We differ in the codes (the leading bits of
    a float32, where theirs are a table that a CPU would have to search) and in the random rounding.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    seed: int = 0
    block: str = ""

    def rule(self, name: str) -> "Adam8bit":
        """Return the rule of a block."""
        return replace(self, block=name)

    def init(self, param: Array) -> State:
        """Return zero moments and a zero count."""
        if param.size < SMALLEST:
            return self._float().init(param)
        blocks = -(-param.size // BLOCK)
        return {
            "first": np.zeros((blocks, BLOCK), np.int8),
            "first_scale": np.zeros((blocks, 1), np.float32),
            "second": np.zeros((blocks, BLOCK), np.uint8),
            "second_scale": np.zeros((blocks, 1), np.float32),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array | Streamed:
        """Return the bias-corrected ratio of the moments, of factors in rows."""
        if "first_scale" not in state:
            return self._float().update(update, state, param)
        state["count"] += 1
        draw = self._noise("moments", state)
        if isinstance(update, Factors | Whole):
            return Streamed(update.shape, self._stream(update, state, draw))
        gradient = dense(update)
        return self._moved(gradient.reshape(-1), 0, state, draw).reshape(gradient.shape)

    def _stream(self, gradient: Factors | Whole, state: State, draw: Noise) -> Parts:
        width = gradient.shape[1]
        for rows, part in gradient.parts(BLOCK // math.gcd(BLOCK, width)):  # whole blocks
            moved = self._moved(part.reshape(-1), rows.start * width, state, draw)
            yield rows, moved.reshape(part.shape)

    def _moved(self, flat: Array, start: int, state: State, draw: Noise) -> Array:
        """Return the ratio for coordinates from `start` on, which begins a block."""
        count = int(state["count"][0])
        first_left, second_left = 1 - self.beta1**count, 1 - self.beta2**count
        result = np.empty(flat.size, np.float32)
        for begin in range(0, flat.size, AT_ONCE):
            own = slice(begin, min(begin + AT_ONCE, flat.size))
            new = _blocks(flat[own], 1 - self.beta1)
            at = slice((start + begin) // BLOCK, (start + begin) // BLOCK + len(new))
            first = _read(state, "first", at, self.beta1)
            second = _read(state, "second", at, self.beta2)
            first += new
            new *= new
            new *= np.float32((1 - self.beta2) / (1 - self.beta1) ** 2)
            second += new
            root = np.sqrt(second, out=new)
            root *= np.float32(first_left / math.sqrt(second_left))
            root += np.float32(first_left * self.epsilon)
            ratio = np.divide(first, root, out=root)
            result[own] = ratio.reshape(-1)[: own.stop - begin]
            _write(state, at, first, second, draw)
        return result

    def rotate(self, state: State, rotation: Array) -> None:
        """Express moments of rows in another basis; see `low_rank.Moments`."""
        if "first_scale" not in state:
            self._float().rotate(state, rotation)
            return
        draw = self._noise("rotation", state)
        everything = slice(0, len(state["first"]))
        whole = state["first"].size // len(rotation) * len(rotation)  # what is left is padding
        first, second = _read(state, "first", everything), _read(state, "second", everything)
        for moments, turn in ((first, rotation), (second, np.square(rotation))):
            flat = moments.reshape(-1)
            flat[:whole] = (flat[:whole].reshape(-1, len(rotation)) @ turn.T).reshape(-1)
        for start in range(0, len(first), AT_ONCE // BLOCK):
            at = slice(start, min(start + AT_ONCE // BLOCK, len(first)))
            _write(state, at, first[at], second[at], draw)

    def _noise(self, purpose: str, state: State) -> Noise:
        return Noise(Key(self.seed, int(state["count"][0])), f"{purpose} of {self.block}")

    def _float(self) -> Adam:
        return Adam(self.beta1, self.beta2, self.epsilon)


def _blocks(flat: Array, factor: float) -> Array:
    """Return numbers times a factor in rows of a block each; the last one ends with zeros."""
    if flat.size % BLOCK == 0:
        return np.float32(factor) * flat.reshape(-1, BLOCK)
    rows = np.zeros((-(-flat.size // BLOCK), BLOCK), np.float32)
    np.multiply(flat, np.float32(factor), out=rows.reshape(-1)[: flat.size])
    return rows


def _read(state: State, name: str, at: slice, factor: float = 1.0) -> Array:
    """Return moments times a factor."""
    codes = state[name][at]
    values = _signed(codes) if name == "first" else _SECOND.values(codes)
    values *= np.float32(factor) * state[f"{name}_scale"][at]
    return values


def _signed(codes: NDArray[np.int8]) -> Array:
    """Return what codes of first moments stand for; the negative code is the negative value."""
    signs = codes >> 7
    values = _FIRST.values((codes ^ signs) - signs)
    bits = values.view(np.int32)
    bits |= signs.astype(np.int32) << np.int32(31)
    return values


def _scale(values: Array) -> Array:
    """Return the scale of each block, (blocks, 1), of values >= 0."""
    return np.maximum(_ROOM * largest(values)[:, None], _SMALLEST_SCALE)


def _write(state: State, at: slice, first: Array, second: Array, draw: Noise) -> None:
    """Round blocks of moments to codes; `first` and `second` are overwritten."""
    signs = -(first < 0).view(np.int8)
    np.abs(first, out=first)
    state["first_scale"][at] = scale = _scale(first)
    codes = _FIRST.rounded(first, scale, draw.bits(first.shape)).view(np.int8)
    state["first"][at] = (codes ^ signs) - signs  # the negative where a sign is -1
    state["second_scale"][at] = scale = _scale(second)
    positive = second > 0
    kept = _SECOND.rounded(second, scale, draw.bits(second.shape))
    state["second"][at] = np.maximum(kept, positive)
