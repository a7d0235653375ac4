"""Matrices that nothing trains: products with them, from float32, few bits, or their own file.

A matrix that is not in float32 becomes it some rows at a time, in a buffer that all share, inside
of every product: with its transpose forward, with itself back. No copy of it is ever whole.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edge_train.arrays.parameters import QuantizedParameters
from edge_train.formats.gguf.weights import GgufWeights
from edge_train.formats.tensor_file import StoredTensor, TensorFile
from edge_train.runtimes.torch.gguf_rows import DECODERS

_WEIGHTS_AT_ONCE = 1 << 21  # of a matrix in float32: 8 MiB; products of less take longer
_DECODED_AT_ONCE = 1 << 18  # so that what is made of bytes stays in the processor's cache


class Buffer:
    """Room for the rows that are in float32 at the moment."""

    def __init__(self) -> None:
        self._rows, self._turned = torch.empty(0), torch.empty(0)

    def rows(self, count: int, width: int) -> Tensor:
        """Return room for so many rows; the next call gives the same."""
        if self._rows.numel() < count * width:
            self._rows = torch.empty(count * width)
        return self._rows[: count * width].view(count, width)

    def turned(self, rows: Tensor, order: Tensor) -> Tensor:
        """Return rows in another order, in room of their own."""
        if self._turned.numel() < rows.numel():
            self._turned = torch.empty(rows.numel())
        room = self._turned[: rows.numel()].view(rows.shape)
        return torch.index_select(rows, 0, order, out=room)


class FrozenMatrix(Protocol):
    """A matrix (rows, columns) that is read some rows at a time."""

    shape: tuple[int, int]

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        """Yield rows in float32, each valid until the next, and what each row is multiplied by."""
        ...

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows by their numbers."""
        ...


class WholeMatrix:
    """A matrix in float32."""

    def __init__(self, values: Tensor) -> None:
        self.shape = (values.shape[0], values.shape[1])
        self._values = values

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        yield slice(0, self.shape[0]), self._values, 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return self._values[ids]


class CodedMatrix:
    """A matrix in INT8 or INT4."""

    def __init__(self, held: QuantizedParameters, name: str, buffer: Buffer) -> None:
        rows, columns = held.for_transform(name).shape
        self.shape = (rows, columns)
        self._held, self._name, self._buffer = held, name, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        count, width = self.shape
        for rows in _slices(count, width):
            levels, scales = map(torch.from_numpy, self._held.levels(self._name, rows))
            weights = self._buffer.rows(*levels.shape).copy_(levels)
            if scales.shape[1] == 1:  # of a whole row: it costs less outside
                yield rows, weights[:, :width], scales[:, 0].float()
            else:
                weights.view(*scales.shape, -1).mul_(scales.float().unsqueeze(-1))
                yield rows, weights[:, :width], 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return torch.from_numpy(self._held.rows(self._name, ids.numpy()))


class FileMatrix:
    """A matrix that stays in its file: rows are read again for every product.

    What is read stands in the system's cache of files, which gives way to programs that need room;
    nothing of it is memory of this process.
    """

    def __init__(self, file: TensorFile, name: str) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self._file, self._name = file, name

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        for rows in _slices(*self.shape):
            yield rows, torch.from_numpy(self._file.part(self._name, rows)), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


class GgufMatrix:
    """A matrix of a GGUF file, in the blocks that it has there; see `FileMatrix`."""

    def __init__(self, file: GgufWeights, name: str, buffer: Buffer) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self._file, self._name, self._buffer = file, name, buffer
        self._kind, self._head = file.stored_as(name)

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        count, width = self.shape
        decode = DECODERS.get(self._kind.name)
        for rows in _slices(count, width, self._head or 1):
            if decode is None:
                yield rows, torch.from_numpy(self._file.part(self._name, rows)), 1.0
                continue
            raw = torch.from_numpy(self._file.raw(self._name, rows))
            weights = self._buffer.rows(len(raw), width)
            blocks, room = raw.view(-1, self._kind.nbytes), weights.view(-1, self._kind.weights)
            step = _DECODED_AT_ONCE // self._kind.weights
            for start in range(0, len(blocks), step):
                decode(blocks[start : start + step], room[start : start + step])
            if self._head:
                order = torch.arange(len(raw)).view(-1, self._head // 2, 2).transpose(1, 2)
                weights = self._buffer.turned(weights, order.reshape(-1))
            yield rows, weights, 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


def stored_matrix(stored: StoredTensor, buffer: Buffer) -> FrozenMatrix:
    """Return a matrix that stays in its file."""
    if isinstance(stored.file, GgufWeights):
        return GgufMatrix(stored.file, stored.name, buffer)
    if isinstance(stored.file, TensorFile):
        return FileMatrix(stored.file, stored.name)
    raise TypeError(f"a {type(stored.file).__name__} has no rows that a product could read")


def times_transposed(values: Tensor, matrix: FrozenMatrix) -> Tensor:
    """Return values @ W^T, (tokens, rows)."""
    result = torch.empty(len(values), matrix.shape[0])
    for rows, weights, scale in matrix.parts():
        torch.mm(values, weights.T, out=result[:, rows])
        if isinstance(scale, Tensor):
            result[:, rows] *= scale
    return result


def times(values: Tensor, matrix: FrozenMatrix) -> Tensor:
    """Return values @ W, (tokens, columns)."""
    result: Tensor | None = None
    for rows, weights, scale in matrix.parts():
        some = values[:, rows]
        if isinstance(scale, Tensor):
            some = some * scale
        result = some @ weights if result is None else result.addmm_(some, weights)
    assert result is not None
    return result


def squared_lengths(matrix: FrozenMatrix, *, transposed: bool) -> Tensor:
    """Return the squared length of every row of W in float64, or of every column."""
    found = torch.zeros(matrix.shape[transposed], dtype=torch.float64)
    for rows, weights, scale in matrix.parts():
        squares = weights.double().square()
        if isinstance(scale, Tensor):
            squares *= scale.double().square().unsqueeze(1)
        if transposed:
            found += squares.sum(0)
        else:
            found[rows] = squares.sum(1)
    return found


def _slices(count: int, width: int, multiple: int = 1) -> Iterator[slice]:
    """Yield neighboring rows, as many as are in float32 at once."""
    step = max(1, _WEIGHTS_AT_ONCE // width // multiple) * multiple
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _looked_up(ids: Tensor, read: Any) -> Tensor:
    """Return rows by their numbers, of which each is read once."""
    found, places = torch.unique(ids, return_inverse=True)
    which: Sequence[int] = found.tolist()
    rows: np.ndarray[Any, Any] = read(which)
    return torch.from_numpy(rows)[places]
