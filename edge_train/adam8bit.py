"""Adam whose moments take one byte each."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.factored import Factors, Parts, Streamed, Update, Whole, dense
from edge_train.protocols import Array, State
from edge_train.rng import Key
from edge_train.transforms import Adam

BLOCK = 256  # moments that share a scale: 8 + 32 / 256 = 8.125 bits each
SMALLEST = 4096  # coordinates; smaller blocks of parameters keep float32, as everyone does
_AT_ONCE = 128 * BLOCK  # moments in float32 at any instant; fits a second-level cache
_MANTISSA = 3  # bits of a code: eight levels from one power of two to the next
_DROPPED = 23 - _MANTISSA  # bits of a float32 that a code leaves out
_ONE = 127 << _MANTISSA  # what is left of 1.0
_NOISE = np.uint32(0xFFFF)  # random bits of a rounding


def _levels(count: int) -> Array:
    """Return what codes 0..count stand for: zero, then floats with few bits up to 1."""
    bits = np.arange(_ONE - count, _ONE + 1, dtype=np.uint32) << np.uint32(_DROPPED)
    values = bits.view(np.float32)
    values[0] = 0
    return values


_FIRST, _SECOND = _levels(127), _levels(255)  # 2^-15.8 and 2^-31.8 are the smallest
_SIGNED = np.concatenate([_FIRST, [np.float32(0)], -_FIRST[:0:-1]])  # by the byte of an int8


@dataclass(frozen=True)
class Adam8bit:
    """Adam with bias correction; moments in 8 bits, one scale for each block of 256.

    Codes are floats of few bits, 6 to 12 % apart, so every coordinate has about the same relative
    precision; linear ones would turn small second moments into zeros, and the division by their
    root into an explosion. They are rounded at random, right on average: with beta2 = 0.999 a
    second moment falls by 0.1 % a step at most and would never fall if it were rounded to the
    nearest code. What this costs is noise of about a tenth in each coordinate of the update. The
    draws are a function of the count. A second moment is never rounded down to zero.
    Bytes: 2.03 per coordinate. Memory: 32,768 coordinates in float32, a few times.

    Source: Dettmers et al. (arXiv:2110.02861). We differ in the codes (the leading bits of
    a float32, where theirs are a table that a CPU would have to search) and in the random rounding.
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
        for begin in range(0, flat.size, _AT_ONCE):
            own = slice(begin, min(begin + _AT_ONCE, flat.size))
            gradient = _whole(flat[own])
            at = slice((start + begin) // BLOCK, (start + begin) // BLOCK + len(gradient))
            first, second = _read(state, "first", at), _read(state, "second", at)
            first *= np.float32(self.beta1)
            first += np.float32(1 - self.beta1) * gradient
            gradient *= gradient
            gradient *= np.float32(1 - self.beta2)
            second *= np.float32(self.beta2)
            second += gradient
            root = np.sqrt(second, out=gradient)
            root *= np.float32(1 / math.sqrt(second_left))
            root += np.float32(self.epsilon)
            ratio = first / root
            ratio *= np.float32(1 / first_left)
            result[own] = ratio.reshape(-1)[: own.stop - begin]
            _write(state, at, first, second, draw)
        return result

    def rotate(self, state: State, rotation: Array) -> None:
        """Express moments of rows in another basis; see `low_rank.Moments`."""
        if "first_scale" not in state:
            self._float().rotate(state, rotation)
            return
        draw = Key(0, int(state["count"][0])).generator("rotation")
        everything = slice(0, len(state["first"]))
        whole = state["first"].size // len(rotation) * len(rotation)  # what is left is padding
        first, second = _read(state, "first", everything), _read(state, "second", everything)
        for moments, turn in ((first, rotation), (second, np.square(rotation))):
            flat = moments.reshape(-1)
            flat[:whole] = (flat[:whole].reshape(-1, len(rotation)) @ turn.T).reshape(-1)
        _write(state, everything, first, second, draw)

    def _float(self) -> Adam:
        return Adam(self.beta1, self.beta2, self.epsilon)


def _whole(flat: Array) -> Array:
    """Return a copy in rows of a block each; the last one ends with zeros."""
    rows = np.zeros((-(-flat.size // BLOCK), BLOCK), np.float32)
    rows.reshape(-1)[: flat.size] = flat
    return rows


def _read(state: State, name: str, at: slice) -> Array:
    levels = _SIGNED if name == "first" else _SECOND
    values: Array = np.take(levels, state[name][at].view(np.uint8), mode="clip")  # the fastest way
    values *= state[f"{name}_scale"][at]
    return values


def _write(state: State, at: slice, first: Array, second: Array, draw: np.random.Generator) -> None:
    """Round blocks of moments to codes; `first` and `second` are overwritten."""
    raw = draw.bit_generator.random_raw(-(-first.size // 2)).view(np.uint32)
    raw = raw[: first.size].reshape(first.shape)
    signs = -(first < 0).view(np.int8)
    np.abs(first, out=first)
    state["first_scale"][at] = scale = first.max(axis=1, keepdims=True)
    codes = _rounded(first, scale, _FIRST, raw & _NOISE).astype(np.int8)
    state["first"][at] = (codes ^ signs) - signs  # the negative where a sign is -1
    state["second_scale"][at] = scale = second.max(axis=1, keepdims=True)
    positive = second > 0
    codes = _rounded(second, scale, _SECOND, raw >> np.uint32(16)).astype(np.uint8)
    state["second"][at] = np.maximum(codes, positive)


def _rounded(
    values: Array, scale: Array, levels: Array, noise: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Return the code below or above each value >= 0, such that its level is right on average.

    Between two codes, a float's bits count up evenly: random ones are added to those that are cut
    off, and carry with the probability of what is cut off. Below the first level the same is done
    by comparing.

    Args:
      values: overwritten.
      noise: 16 random bits for each.
    """
    count = len(levels) - 1
    values *= 1 / np.where(scale > 0, scale, 1)
    low = np.flatnonzero(values < levels[1])
    rounded_up = noise.reshape(-1)[low] < values.reshape(-1)[low] * np.float32(65536 / levels[1])
    codes = values.view(np.uint32)
    codes += noise << np.uint32(_DROPPED - 16)
    codes >>= np.uint32(_DROPPED)
    np.clip(codes, _ONE - count, _ONE, out=codes)
    codes -= np.uint32(_ONE - count)
    codes.reshape(-1)[low] = rounded_up
    return codes
