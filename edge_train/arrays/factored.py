"""Matrices that are not there: products of two thin factors, and ones that are made in rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

Parts = Iterator[tuple[slice, Array]]

_TILE_NUMBERS = 1 << 17  # of a matrix that exist at once: half a MiB in float32


@dataclass
class Factors:
    """The matrix left^T right of shape (rows, columns), kept as its factors.

    The gradient of a linear layer is one: `left` holds the errors at its outputs, `right` its
    inputs, a row for each token. So is an update in a basis: coordinates and vectors. It is read
    like an array where that needs no whole matrix: `shape`, `T`, `@`, some rows.

    Attributes:
      left: (inner, rows).
      right: (inner, columns).
      decay: of an update, the share of the parameter that is subtracted with it.

    Source: contracting the factors instead of their product follows from linearity; GaLore and
    Q-GaLore (arXiv:2403.03507, arXiv:2407.08296) make the product first.

    >>> product = Factors(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
    >>> product.shape, product[1:3].tolist()
    ((3, 4), [[2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0]])
    """

    left: Array
    right: Array
    decay: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.left.shape[1], self.right.shape[1]

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def size(self) -> int:
        """How many numbers the matrix would hold."""
        return math.prod(self.shape)

    @property
    def T(self) -> "Factors":  # noqa: N802 - as NumPy spells it
        """The transpose."""
        return Factors(self.right, self.left, self.decay)

    def __matmul__(self, other: Array) -> Array:
        """Return the product with a matrix, the thin side first."""
        product: Array = self.left.T @ (self.right @ other)
        return product

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Array:
        """Return some rows."""
        some: Array = self.left[:, rows].T @ self.right
        return some

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.left = self.left * np.float32(factor)
        self.decay *= factor

    def parts(self, multiple: int = 1) -> Parts:
        """Yield slices of rows and what is in them, from the first row to the last.

        Args:
          multiple: rows of a part are a multiple of this, but for the last part.
        """
        for rows in tiles(self.shape, multiple):
            yield rows, self[rows]

    def norm(self) -> float:
        """Return the root of the sum of squares, by the factors' inner products if these are few.

        |L^T R|^2 is the sum over pairs of <l_i, l_j> <r_i, r_j>.
        """
        inner, (rows, columns) = len(self.left), self.shape
        if inner * (rows + columns) < rows * columns:
            pairs = (self.left @ self.left.T).astype(np.float64)
            pairs *= self.right @ self.right.T
            return math.sqrt(max(float(pairs.sum()), 0.0))
        squares = (float(np.square(part, dtype=np.float64).sum()) for _, part in self.parts())
        return math.sqrt(sum(squares))


@dataclass
class Streamed:
    """A matrix made in rows, once, by whoever takes them in their order.

    What an elementwise rule makes of `Factors`: the rule's own state changes as rows are taken, so
    all of them must be.

    Attributes:
      source: yields slices of rows and what is in them, from the first row to the last.
      factor: multiplies every row.
      decay: as of `Factors`.
    """

    shape: tuple[int, ...]
    source: Parts
    factor: float = 1.0
    decay: float = 0.0

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.factor *= factor
        self.decay *= factor

    def parts(self) -> Parts:
        """Yield slices of rows and what is in them; a second call yields nothing."""
        for rows, part in self.source:
            part *= np.float32(self.factor)
            yield rows, part


@dataclass
class Whole:
    """A matrix that is there, read in rows as `Factors` are, so that its update is made in rows.

    Attributes:
      decay: as of `Factors`.
    """

    matrix: Array
    decay: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.matrix.shape

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.matrix *= np.float32(factor)
        self.decay *= factor

    def parts(self, multiple: int = 1) -> Parts:
        """Yield slices of rows and copies of what is in them, as `Factors.parts`."""
        rows, columns = self.matrix.shape
        for some in tiles((rows, columns), multiple):
            yield some, self.matrix[some].copy()


Gradient = Array | Factors
Update = Array | Factors | Streamed | Whole


def dense(matrix: Update) -> Array:
    """Return a matrix as an array, for links that need all of it at once.

    Raises:
      ValueError: it has a decay, which belongs to the parameter and not to the matrix.
    """
    if isinstance(matrix, np.ndarray):
        return matrix
    if matrix.decay:
        raise ValueError("an update with a decay cannot be made an array")
    if isinstance(matrix, Whole):
        return matrix.matrix
    whole = np.empty(matrix.shape, np.float32)
    for rows, part in matrix.parts():
        whole[rows] = part
    return whole


def scale(matrix: Update, factor: float) -> None:
    """Multiply in place."""
    if isinstance(matrix, np.ndarray):
        matrix *= np.float32(factor)
    else:
        matrix.scale(factor)


def tiles(shape: tuple[int, int], multiple: int = 1) -> Iterator[slice]:
    """Yield slices of rows that hold about 2^17 numbers each."""
    step = max(_TILE_NUMBERS // shape[1] // multiple, 1) * multiple
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def all_finite(block: NDArray[np.floating[Any]] | Factors) -> bool:
    """Return whether no number is NaN or infinite, without making an array to find out.

    >>> all_finite(np.array([1.0, np.nan])), all_finite(np.array([1.0, -2.0]))
    (False, True)
    """
    if isinstance(block, Factors):
        return all_finite(block.left) and all_finite(block.right)
    return bool(np.isfinite(block.min(initial=0)) and np.isfinite(block.max(initial=0)))
