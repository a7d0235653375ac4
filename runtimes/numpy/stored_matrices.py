"""Products with matrices of a model's files: some rows at a time in float32, never a whole one."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.formats.stored_blocks import checked_values
from edge_train.formats.tensor_file import WeightFile
from edge_train.runtimes.numpy.workers import Workers

PIECE_BYTES = 1 << 21  # of weights in float32 at once; products of more are hardly faster
_ROWS = 128  # pieces are of so many or a multiple: whole heads, which GGUF turns as a whole


class StoredMatrices:
    """Frozen weights of a network, read anew from its files whenever they are needed.

    Files are read by plain reads, whose pages the system keeps as long as nobody else needs them:
    a step that reads all weights three times holds none.

    Args:
      files: of one model.
      path: of the model, for messages.

    Attributes:
      workers: who reads pieces and multiplies by them.
    """

    def __init__(self, files: Sequence[WeightFile], path: Path) -> None:
        self.workers = Workers()
        self._files = {name: file for file in files for name in file.entries}
        self._path = path
        self._finite: set[tuple[str, int]] = set()
        self._vectors: dict[str, Array] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the sides of a tensor.

        Raises:
          ModelError: the files do not have it.
        """
        if name not in self._files:
            raise ModelError(f"{self._path}: no tensor {name!r}; copy or download the model again.")
        return self._files[name].entries[name].shape

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is missing or has other sides.

        Raises:
          ModelError: what was found.
        """
        if (found := self.shape(name)) != shape:
            raise ModelError(
                f"{self._path}: tensor {name!r} is {list(found)}, expected {list(shape)}; copy or "
                "download the model again."
            )

    def vector(self, name: str) -> Array | None:
        """Return a vector, kept from then on; None where the files have none of this name."""
        if name not in self._files:
            return None
        if name not in self._vectors:
            values = self._files[name].read(name)
            self._vectors[name] = checked_values(values, name, self._path)
        return self._vectors[name]

    def rows(self, name: str, ids: NDArray[np.int64]) -> Array:
        """Return some rows of a matrix, (ids, columns)."""
        unique, where = np.unique(ids, return_inverse=True)
        read = self._files[name].rows(name, unique.tolist())
        found: Array = checked_values(read, name, self._path)[where.reshape(-1)]
        return found

    def pieces(self, name: str) -> Iterator[slice]:
        """Yield which rows of a matrix are read at once, all of them in turn."""
        count, width = self.shape(name)
        step = max(1, PIECE_BYTES // (4 * width))
        step -= step % _ROWS if step > _ROWS else 0
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def weights(self, name: str, rows: slice) -> Array:
        """Return neighboring rows of a matrix.

        Raises:
          ModelError: a number is not finite, which is looked for the first time.
        """
        found = self._files[name].part(name, rows)
        if (name, rows.start) not in self._finite:
            checked_values(found, name, self._path)
            self._finite.add((name, rows.start))
        return found

    def times_transposed(self, inputs: Array, name: str, out: Array) -> None:
        """Write inputs @ W^T into `out`, (tokens, rows)."""

        def one(rows: slice) -> None:
            np.matmul(inputs, self.weights(name, rows).T, out=out[:, rows])

        self.workers.all(one, self.pieces(name))

    def add_times(self, errors: Array, name: str, out: Array) -> None:
        """Add errors @ W to `out`, (tokens, columns).

        Memory: `out` once more, and for every thread.
        """
        for part in self.workers.each(partial(self._times, errors, name), self.pieces(name)):
            out += part

    def _times(self, errors: Array, name: str, rows: slice) -> Array:
        found: Array = errors[:, rows] @ self.weights(name, rows)
        return found
