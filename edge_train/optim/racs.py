"""RACS: a gradient scaled by one number a row and one a column."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Factors, Parts, Streamed, Update, dense, tiles
from edge_train.arrays.types import Array, State
from edge_train.optim.transforms import Adam

Vector: TypeAlias = "NDArray[np.float64]"
Sums: TypeAlias = "Callable[[Vector], Vector]"

_NUMBERS = 1 << 20  # of a matrix that is made whole for its squares: twice 4 MiB
_NEGLIGIBLE_UPDATE = 0.1  # share of the usual length; below it a length says nothing


@dataclass(frozen=True)
class Racs:
    """Multiplies a gradient by q_i^-1/2 from the left and by s_j^-1/2 from the right.

    q s^T is the product of two vectors that is nearest to the squares of the gradient: found by
    s = sum_i q_i g_ij^2 / |q|^2 and q = sum_j s_j g_ij^2 / |s|^2 in turn, from q = 1 on. Both are
    means over steps. The update may grow by 1 % a step. Vectors get Adam.

    Sums of squares of a small matrix are taken from the matrix, of a larger one from the T x T
    inner products of its factors, so that neither it nor its update is ever made; where tokens are
    so many that this multiplies more, from its rows, which are made again in every turn.

    Args:
      scale: multiplies the update; the paper's alpha.
      beta: of the means over steps.
      growth: of the update's length in a step, at most.
      rounds: of both sums.

    Bytes: 8 a row, 8 a column and 16. Memory: a matrix of at most 2^20 numbers, twice.

    Source: RACS (arXiv:2502.07752), algorithm 3: alpha 0.05 at a rate of 0.02, beta 0.9, growth
    1.01, 5 rounds; embedding and output layer by Adam. We differ where means begin: theirs from
    zero, so that the first update is ten times as long; ours are corrected as Adam's are. A
    gradient of zeros changes nothing here. Alpha is 1 by default, and the rate that of Adam.
    """

    scale: float = 1.0
    beta: float = 0.9
    growth: float = 1.01
    rounds: int = 5
    vectors: Adam = field(default_factory=Adam)

    def init(self, param: Array) -> State:
        """Return the two means, and the length of the last update."""
        if param.ndim < 2:
            return self.vectors.init(param)
        return {
            "rows": np.zeros(len(param), np.float64),
            "columns": np.zeros(param.size // len(param), np.float64),
            "count": np.zeros(1, np.int64),
            "length": np.zeros(1, np.float64),
        }

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the scaled gradient; of large factors, with its scales in them."""
        if param.ndim < 2:
            return self.vectors.update(update, state, param)
        if isinstance(update, Factors) and update.size > _NUMBERS:
            return self._factors(update, state)
        matrix = dense(update).reshape(len(param), -1)
        size = float(max(matrix.max(), -matrix.min()))
        if not size:
            return matrix.reshape(param.shape)
        matrix /= np.float32(size)
        rows, columns = self._scales(size, *_sums_of(np.square(matrix)), state)
        scaled = _scaled(matrix, rows, columns)
        if isinstance(update, Factors):
            return Streamed(update.shape, scaled)
        for _ in scaled:
            pass  # it is scaled in place
        return matrix.reshape(param.shape)

    def _factors(self, gradient: Factors, state: State) -> Factors:
        left, right = gradient.left, gradient.right
        sizes = [float(np.abs(side).max(initial=0)) for side in (left, right)]
        if not math.prod(sizes):
            return gradient
        scaled = Factors(left / np.float32(sizes[0]), right / np.float32(sizes[1]))
        rows, columns = self._scales(math.prod(sizes), *_weighted_sums(scaled), state)
        scaled.left *= rows
        scaled.right *= columns
        return scaled

    def _scales(
        self, size: float, by_rows: Sums, by_columns: Sums, state: State
    ) -> tuple[Array, Array]:
        """Return factors of the rows and columns of a gradient that was divided by `size`.

        Args:
          by_rows: weights of rows -> the sum of every column's weighted squares.
          by_columns: the same of columns.
        """
        q = np.ones(len(state["rows"]))
        for _ in range(self.rounds):
            s = np.maximum(by_rows(q), 0.0) / (q @ q)
            if not s.any():  # squares of what is left by 1e-19 of the largest number vanish
                return np.zeros(len(q), np.float32), np.zeros(len(s), np.float32)
            q = np.maximum(by_columns(s), 0.0) / (s @ s)
        state["count"] += 1
        for name, now in (("rows", q), ("columns", s * size * size)):
            state[name] += (1 - self.beta) * (now - state[name])
        begun = 1 - self.beta ** int(state["count"][0])
        rows = _inverse_root(state["rows"] / begun)
        columns = _inverse_root(state["columns"] / begun) * size
        length = math.sqrt(max(float(by_rows(rows**2) @ columns**2), 0.0))
        if state["count"][0] > 1:
            usual = math.sqrt(rows.size * columns.size)
            most = self.growth * max(float(state["length"][0]), _NEGLIGIBLE_UPDATE * usual)
            if length > most:
                rows *= most / length
                length = most
        state["length"][0] = length
        return (self.scale * rows).astype(np.float32), columns.astype(np.float32)


def _scaled(matrix: Array, rows: Array, columns: Array) -> Parts:
    """Multiply rows and columns in place, and yield what is done while the cache has it."""
    for some in tiles((len(rows), len(columns))):
        part = matrix[some]
        part *= rows[some, None]
        part *= columns
        yield some, part


def _inverse_root(values: Vector) -> Vector:
    """Return 1 / sqrt(x), and 0 of zeros: nothing of their rows is left to scale."""
    return np.where(values > 0, 1 / np.sqrt(np.where(values > 0, values, 1)), 0)


def _sums_of(squares: Array) -> tuple[Sums, Sums]:
    """Return the sums of squares that are there, as functions of weights."""

    def by_rows(q: Vector) -> Vector:
        return (q.astype(np.float32) @ squares).astype(np.float64)

    def by_columns(s: Vector) -> Vector:
        return (squares @ s.astype(np.float32)).astype(np.float64)

    return by_rows, by_columns


def _weighted_sums(gradient: Factors) -> tuple[Sums, Sums]:
    """Return the sums of weighted squares over rows and over columns, as functions of weights.

    sum_i q_i g_ij^2 is r_j^T (L diag(q) L^T) r_j.
    """
    left, right = gradient.left, gradient.right
    tokens, (rows, columns) = len(left), gradient.shape
    if tokens * (rows + columns) < rows * columns:
        return (
            lambda q: _by_inner_products(left, q, right),
            lambda s: _by_inner_products(right, s, left),
        )

    def by_rows(q: Vector) -> Vector:
        total = np.zeros(columns)
        for some, part in gradient.parts():
            total += q[some].astype(np.float32) @ np.square(part, out=part)
        return total

    def by_columns(s: Vector) -> Vector:
        weights = s.astype(np.float32)
        parts = [np.square(part, out=part) @ weights for _, part in gradient.parts()]
        return np.concatenate(parts).astype(np.float64)

    return by_rows, by_columns


def _by_inner_products(weighted: Array, weights: Vector, other: Array) -> Vector:
    inner = (weighted * weights.astype(np.float32)) @ weighted.T
    found: Vector = np.einsum("tj,tj->j", inner @ other, other, dtype=np.float64)
    return found
