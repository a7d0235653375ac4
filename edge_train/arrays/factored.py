"""Matrices that are not there: products of two thin factors, and ones that are made in rows."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

Parts = Iterator[tuple[slice, Array]]
Make = Callable[[slice | NDArray[np.integer[Any]]], Array]

AHEAD_NUMBERS = 1 << 21  # of a left factor that is made again: 8 MiB
_TILE_NUMBERS = 1 << 17  # of a matrix that exist at once: half a MiB in float32
# Of a product, more rows than that if they are long: a product of few takes up to three times as
# long for each number.
_PRODUCT_ROWS, _PRODUCT_NUMBERS = 64, 1 << 20


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
    def inner(self) -> int:
        """How many products of a row and a column the matrix is the sum of."""
        return len(self.right)

    @property
    def numbers(self) -> int:
        """How many numbers are held."""
        return self.left.size + self.right.size

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
        some: Array = self.left_of(rows).T @ self.right
        return some

    def left_of(self, rows: slice | NDArray[np.integer[Any]]) -> Array:
        """Return what the left factor has of some rows of the matrix, (inner, rows)."""
        some: Array = self.left[:, rows]
        return some

    def pairs(self) -> Array:
        """Return the inner products of the left factor's rows, (inner, inner)."""
        found: Array = self.left @ self.left.T
        return found

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.left = self.left * np.float32(factor)
        self.decay *= factor

    def parts(self, multiple: int = 1) -> Parts:
        """Yield slices of rows and what is in them, from the first row to the last.

        Args:
          multiple: rows of a part are a multiple of this, but for the last part.
        """
        for rows in tiles(self.shape, multiple, _PRODUCT_ROWS):
            yield rows, self[rows]

    def norm(self) -> float:
        """Return the root of the sum of squares, by the factors' inner products if these are few.

        |L^T R|^2 is the sum over pairs of <l_i, l_j> <r_i, r_j>.
        """
        inner, (rows, columns) = self.inner, self.shape
        if inner * (rows + columns) < rows * columns:
            pairs = self.pairs().astype(np.float64)
            pairs *= self.right @ self.right.T
            return math.sqrt(max(float(pairs.sum()), 0.0))
        squares = (float(np.square(part, dtype=np.float64).sum()) for _, part in self.parts())
        return math.sqrt(sum(squares))


class Lookups(Factors):
    """Factors, and rows that are added to their product: the gradient of a table that is looked up.

    As factors alone, each row would be one of a left factor as wide as the table is long, with a
    single 1: a gigabyte for 2,048 tokens of a vocabulary of 128 thousand. What reads `left` (a
    projection does) still gets that; rows, lengths and products do without.

    Args:
      ids: (count,), ascending, each once: the rows.
      values: (count, columns), what is in them.
      rest: what else the matrix is the sum of; of a table without another use, no token at all.
    """

    def __init__(self, ids: NDArray[np.integer[Any]], values: Array, rest: Factors) -> None:
        self.ids, self.values, self.rest = ids, values, rest
        self.decay = rest.decay

    @classmethod
    def of(cls, ids: NDArray[np.integer[Any]], values: Array, rows: int) -> "Lookups":
        """Return the gradient of a table of so many rows that has no other use."""
        none = Factors(np.zeros((0, rows), np.float32), np.zeros((0, values.shape[1]), np.float32))
        return cls(ids, values, none)

    @property
    def left(self) -> Array:  # type: ignore[override]
        """All of it as a left factor."""
        ones = np.zeros((len(self.ids), self.rest.shape[0]), np.float32)
        ones[np.arange(len(self.ids)), self.ids] = 1
        return np.concatenate([self.rest.left, ones])

    @property
    def right(self) -> Array:  # type: ignore[override]
        """The right factor that belongs to `left`."""
        return np.concatenate([self.rest.right, self.values])

    @property
    def inner(self) -> int:
        """How many products the matrix is the sum of, as a product of factors."""
        return self.rest.inner + len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rest.shape

    @property
    def numbers(self) -> int:
        """How many numbers are held."""
        return self.rest.numbers + self.values.size

    def __matmul__(self, other: Array) -> Array:
        """Return the product with a matrix."""
        product = self.rest @ other
        product[self.ids] += self.values @ other
        return product

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Array:
        """Return some rows."""
        some = self.rest[rows]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            rows = np.arange(start, stop, step)
        place = np.searchsorted(self.ids, rows)
        here = place < len(self.ids)
        here[here] = self.ids[place[here]] == rows[here]
        some[here] += self.values[place[here]]
        return some

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.rest.scale(factor)
        self.values = self.values * np.float32(factor)
        self.decay *= factor

    def norm(self) -> float:
        """Return the root of the sum of squares."""
        squares = (float(np.square(part, dtype=np.float64).sum()) for _, part in self.parts())
        return math.sqrt(sum(squares))


class Remade(Factors):
    """Factors whose left one is made again, for some rows at a time, whenever it is read.

    The gradient of an output layer is one: errors of logits would be as many numbers for each token
    as there are words. What they are made from may change in rows that were read already, and in
    no others: an update that is made and subtracted row by row does just that; nobody may read them
    again. What reads all of `left` (a projection does) still gets it.

    Args:
      makes: each makes columns of a part of the left factor, (.., rows), from rows of the matrix;
        all of them below each other are the left factor. Their numbers are finite.
      right: (inner, columns).
      rows: of the matrix.
    """

    def __init__(self, makes: Sequence[Make], right: Array, rows: int, decay: float = 0.0) -> None:
        self.makes, self.right, self._rows = tuple(makes), right, rows
        self.decay = decay
        self._ahead: tuple[slice, Array] = (slice(0, 0), np.zeros((0, 0), np.float32))

    @property
    def left(self) -> Array:  # type: ignore[override]
        """All of the left factor."""
        return self.left_of(slice(0, self._rows))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, self.right.shape[1]

    @property
    def numbers(self) -> int:
        """How many numbers are held: the right factor, and as many to make the left one from."""
        return 2 * self.right.size

    def left_of(self, rows: slice | NDArray[np.integer[Any]]) -> Array:
        """Return what the left factor has of some rows of the matrix, (inner, rows).

        More rows than are asked for are made together, which takes half as long.
        """
        if not isinstance(rows, slice):
            return self._made(rows)
        start, stop, _ = rows.indices(self._rows)
        known, columns = self._ahead
        if start < known.start or stop > known.stop:
            inner, width = self.right.shape
            more = min(AHEAD_NUMBERS // max(inner, 1), AHEAD_NUMBERS // width)
            known = slice(start, min(max(stop, start + more), self._rows))
            columns = self._made(known)
            self._ahead = known, columns
        return columns[:, start - known.start : stop - known.start]

    def _made(self, rows: slice | NDArray[np.integer[Any]]) -> Array:
        if len(self.makes) == 1:
            return self.makes[0](rows)
        return np.concatenate([make(rows) for make in self.makes])

    def pairs(self) -> Array:
        """Return the inner products of the left factor's rows, (inner, inner)."""
        total = np.zeros((self.inner, self.inner), np.float32)
        for rows in tiles(self.shape):
            some = self.left_of(rows)
            total += some @ some.T
        return total

    def __matmul__(self, other: Array) -> Array:
        """Return the product with a matrix, the thin side first."""
        inside = self.right @ other
        product = np.empty((self._rows, *inside.shape[1:]), np.float32)
        for rows in tiles(self.shape):
            product[rows] = self.left_of(rows).T @ inside
        return product

    def scale(self, factor: float) -> None:
        """Multiply in place, the decay too."""
        self.right = self.right * np.float32(factor)
        self.decay *= factor


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


def added(several: list[Factors]) -> Factors:
    """Return the sum of products as one: factors stand on each other, rows of a table are added."""
    plain = [one.rest if isinstance(one, Lookups) else one for one in several]
    plain = [one for one in plain if one.inner] or plain[:1]
    rest = plain[0]
    if len(plain) > 1:
        right = np.concatenate([one.right for one in plain])
        if any(isinstance(one, Remade) for one in plain):
            makes = [one.makes if isinstance(one, Remade) else (one.left_of,) for one in plain]
            rest = Remade([make for some in makes for make in some], right, rest.shape[0])
        else:
            rest = type(rest)(np.concatenate([one.left for one in plain]), right)
    tables = [one for one in several if isinstance(one, Lookups)]
    if not tables:
        return rest
    if len(tables) == 1:
        return Lookups(tables[0].ids, tables[0].values, rest)
    ids = np.unique(np.concatenate([one.ids for one in tables]))
    values = np.zeros((len(ids), rest.shape[1]), np.float32)
    for one in tables:
        values[np.searchsorted(ids, one.ids)] += one.values
    return Lookups(ids, values, rest)


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


def tiles(shape: tuple[int, int], multiple: int = 1, least: int = 1) -> Iterator[slice]:
    """Yield slices of rows that hold about 2^17 numbers each.

    Args:
      multiple: rows of a slice are a multiple of this, but for the last slice.
      least: rows of a slice, as long as they hold no more than 2^20 numbers.

    >>> [rows.stop - rows.start for rows in tiles((100, 1 << 14), least=64)]
    [64, 36]
    >>> next(tiles((100, 1 << 17), least=64)).stop
    8
    """
    width = shape[1]
    step = max(_TILE_NUMBERS // width, min(least, _PRODUCT_NUMBERS // width))
    step = max(step // multiple, 1) * multiple
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def all_finite(block: NDArray[np.floating[Any]] | Factors) -> bool:
    """Return whether no number is NaN or infinite, without making an array to find out.

    >>> all_finite(np.array([1.0, np.nan])), all_finite(np.array([1.0, -2.0]))
    (False, True)
    """
    if isinstance(block, Lookups):
        return all_finite(block.values) and all_finite(block.rest)
    if isinstance(block, Remade):
        return all_finite(block.right)
    if isinstance(block, Factors):
        return all_finite(block.left) and all_finite(block.right)
    return bool(np.isfinite(block.min(initial=0)) and np.isfinite(block.max(initial=0)))
