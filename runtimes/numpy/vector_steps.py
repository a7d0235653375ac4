"""What stands between products of a decoder: norms and gates, forward and backward."""

import math
from collections.abc import Iterator

import numpy as np

from edge_train.arrays.types import Array
from edge_train.runtimes.numpy.workers import Workers

_AT_ONCE = 1 << 17  # numbers of a strip: what a gate computes with them stays in the cache
_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715


def normalize(values: Array, weight: Array, offset: float, epsilon: float) -> Array:
    """Return values / rms(values) * (weight + offset), (..., numbers)."""
    found: Array = values * _inverse_rms(values, epsilon)
    found *= weight + np.float32(offset)
    return found


def normalize_backward(
    values: Array, weight: Array, offset: float, epsilon: float, error: Array
) -> Array:
    """Return the error at the values of `normalize`; `error` is overwritten."""
    inverse = _inverse_rms(values, epsilon)
    error *= weight + np.float32(offset)
    along = np.einsum("...i,...i->...", error, values)[..., None]
    along *= inverse**3 / np.float32(values.shape[-1])
    error *= inverse
    error -= values * along
    return error


def _inverse_rms(values: Array, epsilon: float) -> Array:
    squares: Array = np.einsum("...i,...i->...", values, values)[..., None]
    squares /= np.float32(values.shape[-1])
    squares += np.float32(epsilon)
    np.sqrt(squares, out=squares)
    return np.reciprocal(squares, out=squares)


def let_through(kind: str, both: Array, workers: Workers) -> Array:
    """Return act(gate) * values for gate and values side by side, (tokens, 2 inner)."""
    inner = both.shape[1] // 2
    out = np.empty((len(both), inner), np.float32)

    def one(some: slice) -> None:
        act, _ = _ACTIVATIONS[kind](both[some, :inner], False)
        np.multiply(act, both[some, inner:], out=out[some])

    workers.all(one, _strips(both))
    return out


def let_through_backward(kind: str, both: Array, error: Array, workers: Workers) -> None:
    """Replace gate and values by the errors at them, for errors at the output of `let_through`."""
    inner = both.shape[1] // 2

    def one(some: slice) -> None:
        gate, values = both[some, :inner], both[some, inner:]
        act, slope = _ACTIVATIONS[kind](gate, True)
        slope *= values
        np.multiply(slope, error[some], out=gate)
        np.multiply(act, error[some], out=values)

    workers.all(one, _strips(both))


def _strips(both: Array) -> Iterator[slice]:
    step = max(1, _AT_ONCE // both.shape[1])
    for start in range(0, len(both), step):
        yield slice(start, start + step)


def _silu(gate: Array, sloped: bool) -> tuple[Array, Array]:
    """Return x s(x) and, if wanted, its slope s + x s (1 - s), s the logistic function."""
    share = np.negative(gate)
    with np.errstate(over="ignore"):  # an infinite denominator is a share of 0
        np.exp(share, out=share)
    share += np.float32(1)
    np.reciprocal(share, out=share)
    act: Array = gate * share
    if not sloped:
        return act, share
    slope = 1 - share
    slope *= act
    slope += share
    return act, slope


def _gelu(gate: Array, sloped: bool) -> tuple[Array, Array]:
    """Return x (1 + t) / 2 with t = tanh(a (x + b x^3)), and its slope if wanted."""
    square = gate * gate
    inside = square * np.float32(_TANH_CUBE)
    inside += np.float32(1)
    inside *= gate
    inside *= np.float32(_TANH_SCALE)
    bent = np.tanh(inside, out=inside)
    half: Array = np.float32(0.5) * (1 + bent)
    act: Array = gate * half
    if not sloped:
        return act, half
    square *= np.float32(3 * _TANH_CUBE)
    square += np.float32(1)
    square *= np.float32(0.5 * _TANH_SCALE)
    square *= gate
    square *= 1 - bent * bent
    square += half
    return act, square


_ACTIVATIONS = {"silu": _silu, "gelu_pytorch_tanh": _gelu}
