"""GradNormLoRP: rows of a matrix as lengths times directions; directions learn in few vectors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import (
    Factors,
    Gradient,
    Parts,
    Streamed,
    Update,
    dense,
    tiles,
)
from edge_train.arrays.parameters import readable
from edge_train.arrays.types import Array, Rows, State
from edge_train.optim.low_rank import is_projected, with_prefix, without_prefix
from edge_train.optim.transforms import Chain


@dataclass(frozen=True)
class WeightNorm:
    """Trains a matrix W = g * V / |V|, row by row: g by one chain, V by another of low rank.

    With G the gradient of W and V / |V| the direction of a row,

        grad_g = <G, V / |V|>        grad_V = g / |V| * (G - grad_g * V / |V|)
        g <- g - lengths(grad_g)     V <- V - directions(grad_V)     W <- g * V / |V|

    V is not kept: it is W itself as the last step left it, so that |V| is |g|, there are three
    numbers a row beside the state of the directions, g and its moments, and nothing has to be
    merged at the end. Of factors neither the gradient, nor grad_V, nor the update is ever made.
    Weights are read some rows at a time, those in few bits too. What rounding adds to the length of
    such a row is not taken off it: that would shrink what the row has learned at every step.

    A row of zeros has no direction. It is trained as without a norm until it has one, and its
    length is then what it has become. A length may pass through zero and be negative from there on.
    Decay shrinks lengths; directions have none. Blocks without a basis get what `directions` makes
    of them.

    Args:
      directions: begins with `LowRank` and ends with the rate; decay between them.
      lengths: of a vector, a number a row; it ends with the same rate.

    Bytes: those of `directions`, and 12 a row. Memory: some rows in float32, a few times.

    Source: GradNormLoRP (arXiv:2412.19616). The authors' two optimizers do something else: one
    writes its update into a copy that is thrown away, the other sets g to |V| at every step and
    leaves grad_g out of grad_V; both keep a copy of all weights. We follow the formula and keep no
    copy. Rows are those of the file: GPT-2 stores layers with their inputs first.
    """

    directions: Chain
    lengths: Chain
    rank: int

    def init(self, param: Array) -> State:
        """Return the states of both chains and the lengths of the rows."""
        if not is_projected(param.shape, self.rank):
            return with_prefix("v.", self.directions.init(param))
        weights = readable(param)
        g = np.concatenate([_lengths(weights[some]) for some in _tiles(weights)])
        return {
            "g": g,
            **with_prefix("g.", self.lengths.init(g)),
            **with_prefix("v.", self.directions.init(param)),
        }

    def rule(self, name: str) -> "WeightNorm":
        """Return the rule of a block."""
        return replace(self, directions=self.directions.rule(name), lengths=self.lengths.rule(name))

    def rest(self, state: State, steps: int = 1) -> None:
        """Count steps without an update."""
        self.directions.rest(without_prefix("v.", state), steps)
        if "g" in state:
            self.lengths.rest(without_prefix("g.", state), steps)

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return W before less W after; of an array an array, else made in rows."""
        if not is_projected(param.shape, self.rank):
            return self.directions.update(update, without_prefix("v.", state), param)
        gradient = update if isinstance(update, Factors) else dense(update)
        low = self.project(gradient, state, param)
        assert isinstance(low, np.ndarray)
        change = self.update_projected(low, state, param)
        return dense(change).reshape(param.shape) if isinstance(update, np.ndarray) else change

    def project(self, gradient: Gradient, state: State, param: Array) -> Gradient:
        """Return grad_V in the basis and then grad_g, as one vector; see `Projecting`.

        Both are linear in the gradient, so those of the parts of a batch add up.
        """
        if not is_projected(param.shape, self.rank):
            return gradient
        weights, signs = readable(param), np.copysign(1.0, state["g"])
        if not isinstance(gradient, Factors):
            gradient = gradient.reshape(weights.shape)
        n, along = np.empty(len(signs)), np.empty(len(signs))
        for some in _tiles(weights):
            rows = weights[some]
            n[some] = _lengths(rows)
            along[some] = np.einsum("ij,ij->i", gradient[some], rows)
        has = n > 0
        along = np.where(has, signs * along / np.where(has, n, 1), 0)
        taken = np.where(has, along / np.where(has, n, 1), 0)
        tangent = _Tangent(gradient, weights, signs, taken)
        low = self.directions.project(tangent, without_prefix("v.", state), param)
        assert isinstance(low, np.ndarray)
        return np.concatenate([low.reshape(-1), along.astype(np.float32)])

    def update_projected(self, low: Array, state: State, param: Array) -> Update:
        """Return the update, made in rows, by what `project` returned."""
        weights, g = readable(param), state["g"]
        low, grad_g = low[: -len(g)].reshape(-1, self.rank), low[-len(g) :]
        steps = self.directions.update_projected(low, without_prefix("v.", state), param)
        assert isinstance(steps, Factors)
        shorter = dense(self.lengths.update(grad_g.copy(), without_prefix("g.", state), g))
        return Streamed(steps.shape, _changes(weights, steps, g, shorter))


class _Tangent(Factors):
    """The matrix diag(a) G - diag(b) W, of which only products with thin matrices are taken."""

    def __init__(
        self,
        gradient: Gradient,
        weights: Rows,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        lies: bool = False,
    ) -> None:
        self._gradient, self._weights, self._lies = gradient, weights, lies
        self._a, self._b = a.reshape(-1, 1), b.reshape(-1, 1)
        self.decay = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self._weights.shape
        return (columns, rows) if self._lies else (rows, columns)

    @property
    def T(self) -> "_Tangent":  # noqa: N802 - as NumPy spells it
        """The transpose."""
        return _Tangent(self._gradient, self._weights, self._a, self._b, not self._lies)

    def __matmul__(self, other: Array) -> Array:
        """Return the product with a thin matrix."""
        if self._lies:
            scaled, taken = ((factor * other).astype(np.float32) for factor in (self._a, self._b))
            product: Array = self._gradient.T @ scaled
            for some in _tiles(self._weights):
                product -= self._weights[some].T @ taken[some]
            return product
        product = self._gradient @ other
        product *= self._a.astype(np.float32)
        for some in _tiles(self._weights):
            product[some] -= self._b[some].astype(np.float32) * (self._weights[some] @ other)
        return product


def _changes(weights: Rows, steps: Factors, g: Array, shorter: Array) -> Parts:
    """Yield rows of W less g V / |V| after a step of V and g; `g` changes with them."""
    kept = np.float32(1 - steps.decay)
    for some in _tiles(weights):
        rows, own = weights[some], g[some]
        signs, n = np.copysign(np.float32(1), own), _lengths(rows)
        moved = signs[:, None] * rows - steps[some]
        lengths = _lengths(moved)
        own[:] = np.where(n > 0, kept * (signs * n - shorter[some]), lengths)
        moved *= (own / np.where(lengths > 0, lengths, 1))[:, None]
        yield some, rows - moved


def _tiles(weights: Rows) -> Iterator[slice]:
    rows, columns = weights.shape
    return tiles((rows, columns))


def _lengths(rows: Array) -> Array:
    """Return the lengths of rows; those below about 1e-22 are zero."""
    lengths: Array = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths
