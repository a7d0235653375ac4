"""SCALE: a gradient whose rows are as long as each other, without a state; momentum for a head."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import (
    Factors,
    Lookups,
    Parts,
    Remade,
    Streamed,
    Update,
    Whole,
    dense,
    tiles,
)
from edge_train.arrays.rounding import AT_ONCE, Noise
from edge_train.arrays.types import Array, State
from edge_train.optim.adam8bit import SMALLEST
from edge_train.optim.moments8bit import BLOCK, blocks, read, write_first
from edge_train.optim.transforms import Adam
from edge_train.rng import Key

_SMALLEST_SIZE = 1e-8  # root mean square of a row; the authors' code divides by no less


@dataclass(frozen=True)
class Normalized:
    """Divides every row of a matrix by its root mean square, or every column by its own.

    u_ij = g_ij / sqrt(mean_j g_ij^2), over rows i for "columns". A row of a linear layer is what
    makes one output; a column of a table of tokens is one coordinate of all of them. Of factors no
    matrix is ever whole: rows are divided as they are made, columns by sums of squares that follow
    from the factors' inner products. With momentum, m <- momentum m + (1 - momentum) g is what is
    divided. Vectors get Adam.

    Args:
      by: whose root mean square is 1 afterwards.
      momentum: of the mean; 0 keeps none.
      seed: of the run.
      block: whose mean this is; `rule` fills it in.

    Bytes: none; with momentum 1.02 a coordinate, in 8 bits as first moments of `Adam8bit` are.

    Source: SCALE (arXiv:2506.16659): rate 1e-3 up to 350 M weights, 2e-4 at 1 B, 1e-4 at 7 B, a
    cosine after a tenth of the steps, momentum 0.9 for the output layer alone, 512 sequences of
    256 tokens in a step. We differ in the momentum's 8 bits (theirs are 32), and in calling rows
    what a file has as rows: GPT-2's layers are stored with their inputs first.
    """

    by: Literal["rows", "columns"] = "rows"
    momentum: float = 0.0
    seed: int = 0
    block: str = ""
    vectors: Adam = field(default_factory=Adam)

    def rule(self, name: str) -> "Normalized":
        """Return the rule of a block."""
        return replace(self, block=name)

    def init(self, param: Array) -> State:
        """Return no state, a mean of zeros, or of a vector Adam's."""
        if param.ndim < 2:
            return self.vectors.init(param)
        if not self.momentum:
            return {}
        if param.size < SMALLEST:
            return {"first": np.zeros(param.shape, np.float32)}
        count = -(-param.size // BLOCK)
        return {
            "first": np.zeros((count, BLOCK), np.int8),
            "first_scale": np.zeros((count, 1), np.float32),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the divided gradient, or mean; of factors in rows, or as factors."""
        if param.ndim < 2:
            return self.vectors.update(update, state, param)
        if isinstance(update, Factors | Whole):
            return self._lazily(update, state)
        flat = dense(update).reshape(len(param), -1)
        return dense(self._lazily(Whole(flat), state)).reshape(param.shape)

    def _lazily(self, gradient: Factors | Whole, state: State) -> Update:
        shape = (gradient.shape[0], gradient.shape[1])
        if self.by == "rows":
            return Streamed(shape, self._rows(gradient, state))
        if self.momentum:
            squares = np.zeros(shape[1])
            for _, mean in self._means(gradient, state):
                squares += _squares(mean, "ij,ij->j")
            some = tiles(shape, _whole_blocks(shape[1]))
            kept = ((rows, self._kept(state, rows, shape[1])) for rows in some)
            return Streamed(shape, _divided(kept, _size(squares, shape[0])))
        size = _size(_column_squares(gradient), shape[0])
        if isinstance(gradient, Factors):
            return _columns_divided(gradient, size)
        return Streamed(shape, _divided(gradient.parts(), size))

    def _rows(self, gradient: Factors | Whole, state: State) -> Parts:
        for rows, part in self._means(gradient, state):
            part /= _size(_squares(part, "ij,ij->i"), part.shape[1])[:, None]
            yield rows, part

    def _means(self, gradient: Factors | Whole, state: State) -> Parts:
        """Yield rows of the mean, which takes the gradient in; of the gradient without momentum."""
        if not self.momentum:
            yield from gradient.parts()
        elif "first_scale" in state:
            yield from self._means_in_8_bits(gradient, state)
        else:
            for rows, part in gradient.parts():
                first = state["first"].reshape(gradient.shape)[rows]
                first += np.float32(1 - self.momentum) * (part - first)
                yield rows, first.copy()

    def _means_in_8_bits(self, gradient: Factors | Whole, state: State) -> Parts:
        draw = Noise(Key(self.seed, int(state["count"][0])), f"momentum of {self.block}")
        state["count"] += 1
        width = gradient.shape[1]
        for rows, some in gradient.parts(_whole_blocks(width)):
            part = np.ascontiguousarray(some)
            flat = part.reshape(-1)
            for begin in range(0, flat.size, AT_ONCE):
                own = slice(begin, min(begin + AT_ONCE, flat.size))
                mean = blocks(flat[own], 1 - self.momentum)
                first = (rows.start * width + begin) // BLOCK
                at = slice(first, first + len(mean))
                mean += read(state, "first", at, self.momentum)
                flat[own] = mean.reshape(-1)[: own.stop - begin]
                write_first(state, at, mean, draw)
            yield rows, part

    def _kept(self, state: State, rows: slice, width: int) -> Array:
        """Return rows of the mean as it is kept; those of a tile, which begins a block."""
        if "first_scale" not in state:
            own: Array = state["first"].reshape(-1, width)[rows].copy()
            return own
        first, last = rows.start * width // BLOCK, -(-rows.stop * width // BLOCK)
        flat = read(state, "first", slice(first, last)).reshape(-1)
        return flat[: (rows.stop - rows.start) * width].reshape(-1, width)


def _whole_blocks(width: int) -> int:
    """Return how many rows fill blocks of moments."""
    return BLOCK // math.gcd(BLOCK, width)


def _squares(part: Array, sums: str) -> NDArray[np.float64]:
    """Return sums of squares; in float32 those of 1e19 and above would be infinite."""
    found: NDArray[np.float64] = np.einsum(sums, part, part, dtype=np.float64)
    return found


def _size(squares: NDArray[np.float64], count: int) -> Array:
    """Return root mean squares to divide by."""
    return np.maximum(np.sqrt(squares / count), _SMALLEST_SIZE).astype(np.float32)


def _divided(parts: Parts, size: Array) -> Parts:
    for rows, part in parts:
        part /= size
        yield rows, part


def _columns_divided(gradient: Factors, size: Array) -> Factors:
    """Return a gradient whose columns are divided, as what it is."""
    if isinstance(gradient, Lookups):
        rest = _columns_divided(gradient.rest, size)
        return Lookups(gradient.ids, gradient.values / size, rest)
    if isinstance(gradient, Remade):
        return Remade(gradient.makes, gradient.right / size, gradient.shape[0])
    return Factors(gradient.left, gradient.right / size)


def _column_squares(gradient: Factors | Whole) -> NDArray[np.float64]:
    """Return the sum of squares of every column.

    Column j of L^T R has r_j^T (L L^T) r_j; one pass over the rows where that multiplies more.
    """
    if isinstance(gradient, Lookups) and not gradient.rest.inner:
        return _squares(gradient.values, "ij,ij->j")
    if isinstance(gradient, Factors) and not isinstance(gradient, Lookups):
        inner, (rows, columns) = gradient.inner, gradient.shape
        if inner * (rows + columns) < rows * columns:
            right = gradient.right
            pairs = gradient.pairs() @ right
            found: NDArray[np.float64] = np.einsum("tj,tj->j", pairs, right, dtype=np.float64)
            return np.maximum(found, 0.0, out=found)
    total = np.zeros(gradient.shape[1])
    for _, part in gradient.parts():
        total += _squares(part, "ij,ij->j")
    return total
