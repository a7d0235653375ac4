"""What the inputs of a layer span: the directions in which its weights decide what it answers."""

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

_AT_ONCE = 1 << 18  # numbers of a buffer of inputs, at least: a small product costs its call
_NOTHING = 1e-7  # share of the largest energy below which a direction is rounding
_LEVELS = 127


class InputSketch:
    """The strongest directions of a stream of inputs beside known ones, in bounded memory.

    Rows are collected less what the known directions hold of them; a full buffer is replaced by
    its `limit` strongest directions, each as long as the energy (sum of squares) it stands for.
    Where `limit` is the number of inputs nothing is lost, and the outcome is that of one singular
    value decomposition of all rows.

    Args:
      known: (inputs, k) orthonormal directions of earlier tasks.
      most: directions that may be added; 0 only measures the known ones.

    Memory: see `sketch_bytes`.

    Source: GPM (arXiv:2103.09762), which decomposes all inputs of a task at once. We differ: the
    inputs are streamed, so that directions beyond `most` are lost.
    """

    def __init__(self, known: Array, most: int) -> None:
        self._known = known
        self._limit = min(known.shape[0], most)
        self._rows = np.empty((_buffer_rows(known.shape[0], most), known.shape[0]), np.float32)
        self._filled = 0
        self._energy = 0.0
        self._known_energy = np.zeros(known.shape[1], np.float64)

    def add(self, rows: Array) -> None:
        """Count inputs, (n, inputs) float32."""
        part = len(self._rows) - self._limit  # what fits beside the strongest
        for start in range(0, len(rows), part):
            some = rows[start : start + part]
            inside = some @ self._known
            self._energy += float(np.square(some, dtype=np.float64).sum())
            self._known_energy += np.square(inside, dtype=np.float64).sum(axis=0)
            if self._filled + len(some) > len(self._rows):
                energies, directions = self._strongest()
                self._filled = len(energies)
                self._rows[: self._filled] = (directions * np.sqrt(energies)).T
            end = self._filled + len(some)
            np.subtract(some, inside @ self._known.T, out=self._rows[self._filled : end])
            self._filled = end

    def _strongest(self) -> tuple[Array, Array]:
        return strongest(self._rows[: self._filled], self._limit)

    def chosen(self, share: float) -> tuple[Array, NDArray[np.bool_], float]:
        """Return the fewest new directions with which `share` of the energy is held.

        Returns:
          directions: (inputs, new) float32, orthonormal, the strongest first.
          owned: (k,) the fewest known directions that hold that share of what all known ones do.
          held: the share of the energy that known and new ones hold together.
        """
        energies, directions = self._strongest()
        total = self._energy or 1.0
        known = float(self._known_energy.sum())
        so_far = known + np.concatenate(([0.0], np.cumsum(energies, dtype=np.float64)))
        new = min(int(np.searchsorted(so_far, share * total)), len(energies))
        order = np.argsort(-self._known_energy, kind="stable")
        by_known = np.cumsum(self._known_energy[order])
        owned = np.zeros(len(order), np.bool_)
        owned[order[: int(np.searchsorted(by_known, share * known)) + 1]] = True
        return directions[:, :new], owned, float(so_far[new] / total)


def _buffer_rows(inputs: int, most: int) -> int:
    return max(2 * min(inputs, most), -(-_AT_ONCE // inputs), 1)


def sketch_bytes(inputs: int, most: int) -> int:
    """Return what a sketch holds at most: its buffer, and a decomposition of it."""
    rows = _buffer_rows(inputs, most)
    side = min(rows, inputs)
    return 4 * rows * inputs + 4 * inputs * side + 5 * 4 * side * side


def strongest(rows: Array, most: int) -> tuple[Array, Array]:
    """Return the energies of the strongest directions of rows, and the directions.

    Args:
      rows: (n, inputs).
      most: directions at most; there are fewer where the others hold nothing.

    Returns:
      energies: (k,) squared singular values, the largest first.
      directions: (inputs, k) orthonormal: right singular vectors.
    """
    tall = len(rows) >= rows.shape[1]
    energies, vectors = np.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    energies, vectors = energies[::-1][:most], vectors[:, ::-1][:, :most]
    real = energies > _NOTHING * max(float(energies.max(initial=0.0)), 1e-30)
    energies, vectors = energies[real], vectors[:, real]
    if not tall:
        vectors = rows.T @ (vectors / np.sqrt(energies))
    return energies, np.ascontiguousarray(vectors)


def quantized(directions: Array) -> tuple[NDArray[np.int8], Array]:
    """Return directions (inputs, k) in INT8 with one scale a direction."""
    scale = np.abs(directions).max(axis=0, initial=0.0) / np.float32(_LEVELS)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.rint(directions / scale).astype(np.int8), scale


def orthonormal(codes: NDArray[np.int8], scale: Array) -> Array:
    """Return the orthonormal directions (inputs, k) float32 that INT8 ones span, in their order.

    Rounding turns a direction by about a hundredth; what they span is kept exactly afterwards, by
    Gram and Schmidt: those that are added later change no earlier one.
    """
    if not codes.size:
        return np.zeros(codes.shape, np.float32)
    base, upper = np.linalg.qr(codes.astype(np.float32) * scale)
    base *= np.where(np.diagonal(upper) < 0, np.float32(-1), np.float32(1))
    return np.ascontiguousarray(base)
