"""Bases of a low-rank update: project a gradient, lift an update, refresh from a gradient.

All of them see a matrix *standing*: (long, short), the shorter side last. A basis is `rank` vectors
of `short` values; projecting gives (long, rank). So groups of a packed vector never mix vectors,
whichever side of the weight is the shorter one.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays import packed as int4
from edge_train.arrays.factored import Factors, Gradient
from edge_train.arrays.types import Array, State
from edge_train.rng import Key

_EXTRA = 8  # vectors that a sketch has more than the basis; the usual advice is 5 to 10
_PASSES = 2  # over the gradient and back: each squares the ratio of singular values
_ROWS = 1024  # of a gradient transformed at once


class Basis(Protocol):
    """`rank` vectors in which a gradient is kept."""

    @property
    def rank(self) -> int:
        """The number of vectors."""
        ...

    def init(self, width: int) -> State:
        """Return the full-sized storage of a basis of vectors of `width` values."""
        ...

    def refresh(self, standing: Gradient, state: State, epoch: int) -> Array:
        """Choose the vectors anew for a gradient (long, width), in place.

        Args:
          epoch: counts the refreshes; every random draw is a function of it.

        Returns:
          The new vectors by the old ones, (rank, rank): their inner products.
        """
        ...

    def project(self, standing: Gradient, state: State) -> Array:
        """Return the coordinates (long, rank) of a matrix (long, width)."""
        ...

    def lift(self, low: Array, state: State, width: int) -> Array:
        """Return the matrix (long, width) that has the coordinates `low`."""
        ...

    def vectors(self, state: State, width: int) -> Array:
        """Return the vectors, (rank, width) float32: `lift(low)` is `low @ vectors`."""
        ...

    def columns(self, state: State) -> NDArray[np.int32] | None:
        """Return the columns that the vectors are, ascending; None where they mix columns.

        In such a column the basis holds all of a matrix, in every other one nothing.
        """
        ...


@dataclass(frozen=True)
class TopVectors:
    """The leading right singular vectors, in float32 or packed INT4.

    A randomized range finder with two passes over the gradient: O(long * short * rank) instead of
    the SVD's O(long * short^2), so that a refresh costs about as much as a few projections.

    Args:
      packed: keep the vectors in 4.25 bits a value. What is read back is no longer orthonormal;
        project and lift use the same vectors.
      aligned: turn every new vector so that its product with the one before it is not negative.
        Both signs are right; of two in turn, first moments that are kept would belong to neither.

    Source: GaLore (arXiv:2403.03507), which takes signs as they are found; Halko, Martinsson and
    Tropp (arXiv:0909.4061), 4.4.
    """

    rank: int
    seed: int = 0
    packed: bool = False
    aligned: bool = True

    def init(self, width: int) -> State:
        """Return zero vectors."""
        if self.packed:
            return int4.empty(self.rank, width)
        return {"vectors": np.zeros((self.rank, width), np.float32)}

    def refresh(self, standing: Gradient, state: State, epoch: int) -> Array:
        """Find the vectors of `standing`."""
        width = standing.shape[1]
        before = self.vectors(state, width)
        draw = Key(self.seed, epoch).generator("sketch", *standing.shape)
        found = top_vectors(standing, self.rank, draw)
        if self.aligned:
            found[np.einsum("ij,ij->i", found, before) < 0] *= -1
        if self.packed:
            int4.pack(found, state)
        else:
            before = before.copy()
            state["vectors"][:] = found
        turned: Array = self.vectors(state, width) @ before.T
        return turned

    def project(self, standing: Gradient, state: State) -> Array:
        """Return inner products with the vectors."""
        low: Array = standing @ self.vectors(state, standing.shape[1]).T
        return low

    def lift(self, low: Array, state: State, width: int) -> Array:
        """Return the vectors, weighted by `low`."""
        lifted: Array = low @ self.vectors(state, width)
        return lifted

    def vectors(self, state: State, width: int) -> Array:
        return int4.unpack(state, width) if self.packed else state["vectors"]

    def columns(self, state: State) -> None:
        """Return None: every vector mixes all columns."""


@dataclass(frozen=True)
class Columns:
    """Some columns of the gradient, or of its discrete cosine transform; only indices are kept.

    Args:
      of: "gradient", or "dct" for the cosine basis, which all layers of a width share.
      by: "energy" takes the columns that hold most of the gradient, which is optimal for a fixed
        orthonormal basis; "chance" draws them.

    Source: Trion and DCT-AdamW (arXiv:2505.17967); FRUGAL (arXiv:2411.07837) for "chance". Ranking
    by l1 or l2 norm makes no difference in practice; l2 has the proof.
    """

    rank: int
    of: Literal["gradient", "dct"] = "gradient"
    by: Literal["energy", "chance"] = "energy"
    seed: int = 0

    def init(self, width: int) -> State:
        """Return indices of no column."""
        return {"indices": np.full(self.rank, -1, np.int32)}

    def refresh(self, standing: Gradient, state: State, epoch: int) -> Array:
        """Choose columns; the result has a 1 where one stays and 0 elsewhere."""
        before = state["indices"].copy()
        if self.by == "chance":
            draw = Key(self.seed, epoch).generator("columns", *standing.shape)
            chosen = draw.permutation(standing.shape[1])[: self.rank]
        else:
            energy = self._energy(standing)
            chosen = np.argsort(-energy, kind="stable")[: self.rank]
        state["indices"][:] = np.sort(chosen)
        same: Array = (state["indices"][:, None] == before).astype(np.float32)
        return same

    def project(self, standing: Gradient, state: State) -> Array:
        """Return the chosen columns."""
        if self.of == "gradient":
            return np.ascontiguousarray(standing.T[state["indices"]].T)
        vectors = cosines(state["indices"], standing.shape[1])
        low: Array = standing @ vectors.T
        return low

    def lift(self, low: Array, state: State, width: int) -> Array:
        """Return a matrix that has `low` in the chosen columns and zeros elsewhere."""
        if self.of == "dct":
            lifted: Array = low @ cosines(state["indices"], width)
            return lifted
        lifted = np.zeros((len(low), width), np.float32)
        lifted[:, state["indices"]] = low
        return lifted

    def vectors(self, state: State, width: int) -> Array:
        """Return the cosines, or rows of the identity."""
        if self.of == "dct":
            return cosines(state["indices"], width)
        chosen: Array = (state["indices"][:, None] == np.arange(width)).astype(np.float32)
        return chosen

    def columns(self, state: State) -> NDArray[np.int32] | None:
        """Return the chosen columns, or None of cosines, which mix all of them."""
        indices: NDArray[np.int32] = state["indices"]
        return indices if self.of == "gradient" else None

    def _energy(self, standing: Gradient) -> NDArray[np.float64]:
        if isinstance(standing, Factors) and standing.inner < standing.shape[0]:
            # column j of L^T R has the energy r_j^T (L L^T) r_j; to transform its rows is to
            # transform those of R
            right = cosine_transform(standing.right) if self.of == "dct" else standing.right
            weighted = standing.pairs() @ right
            weighted *= right
            energy: NDArray[np.float64] = weighted.sum(axis=0, dtype=np.float64)
            return energy
        total = np.zeros(standing.shape[1], np.float64)
        for start in range(0, standing.shape[0], _ROWS):
            rows = standing[start : start + _ROWS]
            rows = cosine_transform(rows) if self.of == "dct" else rows
            total += np.square(rows, dtype=np.float64).sum(axis=0)
        return total


@dataclass(frozen=True)
class RandomVectors:
    """Independent normals of variance 1 / rank, made again from a key at every use.

    Lengths are kept on average, but the vectors are not orthonormal: `lift(project(x))` is not the
    nearest matrix. Blocks of the same width share vectors. Bytes: 8, the number of the refresh.

    Source: APOLLO (arXiv:2412.05270), whose code keeps the matrix.
    """

    rank: int
    seed: int = 0

    def init(self, width: int) -> State:
        """Return the number of the refresh."""
        return {"epoch": np.zeros(1, np.int64)}

    def refresh(self, standing: Gradient, state: State, epoch: int) -> Array:
        """Go on to other vectors."""
        width = standing.shape[1]
        before = self.vectors(state, width)
        state["epoch"][0] = epoch
        turned: Array = self.vectors(state, width) @ before.T
        return turned

    def project(self, standing: Gradient, state: State) -> Array:
        """Return inner products with the vectors."""
        low: Array = standing @ self.vectors(state, standing.shape[1]).T
        return low

    def lift(self, low: Array, state: State, width: int) -> Array:
        """Return the vectors, weighted by `low`."""
        lifted: Array = low @ self.vectors(state, width)
        return lifted

    def vectors(self, state: State, width: int) -> Array:
        draw = Key(self.seed, int(state["epoch"][0])).generator("vectors", width)
        vectors = draw.standard_normal((self.rank, width), np.float32)
        return vectors / np.float32(np.sqrt(self.rank))

    def columns(self, state: State) -> None:
        """Return None: every vector mixes all columns."""


def as_tall(matrix: Gradient) -> Gradient:
    """Return a view of a block of two or more dimensions as (long, short).

    >>> as_tall(np.zeros((2, 5), np.float32)).shape, as_tall(np.zeros((4, 3, 2), np.float32)).shape
    ((5, 2), (6, 4))
    """
    if isinstance(matrix, Factors):
        return matrix if is_tall(matrix.shape) else matrix.T
    flat = matrix.reshape(len(matrix), -1)
    return flat if is_tall(flat.shape) else flat.T


def restore_shape(standing: Gradient, shape: tuple[int, ...]) -> Gradient:
    """Return a view of `standing` in the shape it had before it was stood up."""
    lying = standing if is_tall(shape) else standing.T
    return lying if isinstance(lying, Factors) else lying.reshape(shape)


def is_tall(shape: tuple[int, ...]) -> bool:
    """Return whether a block has at least as many rows as columns.

    >>> is_tall((3, 2)), is_tall((2, 3)), is_tall((4, 2, 3))
    (True, False, False)
    """
    return shape[0] * shape[0] >= math.prod(shape)


def captured(standing: Gradient, basis: Basis, state: State) -> float:
    """Return the share of a matrix's energy that projecting and lifting keeps.

    With X the coordinates and V the vectors, |G - X V|^2 = |G|^2 - 2 |X|^2 + <X^T X, V V^T>: of
    factors, no matrix is made. Vectors need not be orthonormal.
    """
    whole = standing.norm() if isinstance(standing, Factors) else np.linalg.norm(standing)
    low = basis.project(standing, state).astype(np.float64)
    vectors = basis.vectors(state, standing.shape[1]).astype(np.float64)
    lifted = ((low.T @ low) * (vectors @ vectors.T)).sum()
    return float((2 * np.square(low).sum() - lifted) / float(whole) ** 2) if whole else 1.0


def top_vectors(standing: Gradient, rank: int, draw: np.random.Generator) -> Array:
    """Return about the `rank` leading right singular vectors, (rank, width), orthonormal.

    Memory: a sketch of rank + 8 columns on either side of the matrix.
    """
    size = min(rank + _EXTRA, standing.shape[1])
    sketch = draw.standard_normal((standing.shape[1], size), np.float32)
    for _ in range(_PASSES):
        seen = standing @ sketch
        seen /= np.float32(np.abs(seen).max() or 1)  # else the square of a tiny one vanishes
        sketch = np.linalg.qr(standing.T @ seen)[0]
    seen = (standing @ sketch).astype(np.float64)
    _, turns = np.linalg.eigh(seen.T @ seen)
    vectors = sketch @ turns[:, ::-1][:, :rank].astype(np.float32)
    return np.ascontiguousarray(vectors.T)


def cosines(indices: NDArray[np.int32], width: int) -> Array:
    """Return rows `indices` of the orthonormal DCT-II matrix, (len(indices), width)."""
    places = indices.astype(np.int64)[:, None] * (2 * np.arange(width) + 1)
    rows = np.cos(np.pi / (2 * width) * (places % (4 * width)))
    rows *= np.sqrt(2 / width)
    rows[indices == 0] *= np.sqrt(0.5)
    found: Array = rows.astype(np.float32)
    return found


def cosine_transform(rows: Array) -> Array:
    """Return the orthonormal DCT-II of every row, by one FFT of its own length.

    Source: Makhoul (1980): even columns ascending, then odd ones descending, then a twist.
    """
    order, twist = _twist(rows.shape[1])
    turned = np.fft.fft(np.take(rows, order, axis=1), axis=1) * twist
    real: Array = np.real(turned).astype(np.float32)
    return real


@lru_cache(maxsize=8)
def _twist(width: int) -> tuple[NDArray[np.int64], NDArray[np.complex64]]:
    places: NDArray[np.int64] = np.arange(width)
    order = np.concatenate([np.flatnonzero(places % 2 == 0), np.flatnonzero(places % 2)[::-1]])
    twist = np.exp(-0.5j * np.pi * places / width) * np.sqrt(2 / width)
    twist[0] = np.sqrt(1 / width)
    return order, twist.astype(np.complex64)
