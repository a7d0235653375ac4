"""Matrices that are read some rows at a time: in float32, in few bits, or from their own file.

A matrix that is not in the type of products becomes it some rows at a time, in a buffer that all
share, inside of every product: with its transpose forward, with itself back. No copy of it is ever
whole.
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
from edge_train.runtimes.torch.products import product_added, product_into

_WEIGHTS_AT_ONCE = 1 << 21  # of a matrix: 8 MiB in float32; products of less take longer
_DECODED_AT_ONCE = 1 << 18  # so that what is made of bytes stays in the processor's cache


class Buffer:
    """Room for the rows that are multiplied at the moment.

    Args:
      kind: the type of products: float32 or bfloat16.
    """

    def __init__(self, kind: torch.dtype = torch.float32) -> None:
        self.kind = kind
        self._rows, self._turned = torch.empty(0), torch.empty(0)
        self._rounded = torch.empty(0, dtype=kind)

    def rows(self, count: int, width: int) -> Tensor:
        """Return room for so many rows in float32; the next call gives the same."""
        if self._rows.numel() < count * width:
            self._rows = torch.empty(count * width)
        return self._rows[: count * width].view(count, width)

    def turned(self, rows: Tensor, order: Tensor) -> Tensor:
        """Return rows in another order, in room of their own."""
        if self._turned.numel() < rows.numel():
            self._turned = torch.empty(rows.numel())
        room = self._turned[: rows.numel()].view(rows.shape)
        return torch.index_select(rows, 0, order, out=room)

    def ready(self, rows: Tensor) -> Tensor:
        """Return rows in the type of products, in room of their own if that is another."""
        if rows.dtype == self.kind:
            return rows
        if self._rounded.numel() < rows.numel():
            self._rounded = torch.empty(rows.numel(), dtype=self.kind)
        return self._rounded[: rows.numel()].view(rows.shape).copy_(rows)


class StoredMatrix(Protocol):
    """A matrix (rows, columns) that is read some rows at a time, in the type of products."""

    shape: tuple[int, int]
    kind: torch.dtype

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        """Yield rows, each valid until the next, and what each row is multiplied by."""
        ...

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows by their numbers, in float32."""
        ...


class WholeMatrix:
    """A matrix that is held in the type of products."""

    def __init__(self, values: Tensor) -> None:
        self.shape = (values.shape[0], values.shape[1])
        self.kind = values.dtype
        self._values = values

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        yield slice(0, self.shape[0]), self._values, 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return self._values[ids].float()


class FloatMatrix:
    """A matrix that is held in float32, whatever products are in."""

    def __init__(self, values: Tensor, buffer: Buffer) -> None:
        self.shape = (values.shape[0], values.shape[1])
        self.kind = buffer.kind
        self._values, self._buffer = values, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        if self.kind == torch.float32:
            yield slice(0, self.shape[0]), self._values, 1.0
            return
        for rows in _slices(*self.shape):
            yield rows, self._buffer.ready(self._values[rows]), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return self._values[ids]


class CodedMatrix:
    """A matrix in INT8 or INT4."""

    def __init__(self, held: QuantizedParameters, name: str, buffer: Buffer) -> None:
        rows, columns = held.for_transform(name).shape
        self.shape = (rows, columns)
        self.kind = buffer.kind
        self._held, self._name, self._buffer = held, name, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        count, width = self.shape
        for rows in _slices(count, width):
            levels, scales = map(torch.from_numpy, self._held.levels(self._name, rows))
            if scales.shape[1] == 1:  # of a whole row: it costs less outside
                weights = self._buffer.ready(levels)  # in bfloat16, too, levels are exact
                yield rows, weights[:, :width], scales[:, 0].float()
            else:
                weights = self._buffer.rows(*levels.shape).copy_(levels)
                weights.view(*scales.shape, -1).mul_(scales.float().unsqueeze(-1))
                yield rows, self._buffer.ready(weights[:, :width]), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return torch.from_numpy(self._held.rows(self._name, ids.numpy()))


class FileMatrix:
    """A matrix that stays in its file: rows are read again for every product.

    What is read stands in the system's cache of files, which gives way to programs that need room;
    nothing of it is memory of this process.
    """

    def __init__(self, file: TensorFile, name: str, buffer: Buffer) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self.kind = buffer.kind
        self._file, self._name, self._buffer = file, name, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        for rows in _slices(*self.shape):
            read = torch.from_numpy(self._file.part(self._name, rows))
            yield rows, self._buffer.ready(read), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


class GgufMatrix:
    """A matrix of a GGUF file, in the blocks that it has there; see `FileMatrix`."""

    def __init__(self, file: GgufWeights, name: str, buffer: Buffer) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self.kind = buffer.kind
        self._file, self._name, self._buffer = file, name, buffer
        self._stored, self._head = file.stored_as(name)

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        count, width = self.shape
        decode = DECODERS.get(self._stored.name)
        for rows in _slices(count, width, self._head or 1):
            if decode is None:
                read = torch.from_numpy(self._file.part(self._name, rows))
                yield rows, self._buffer.ready(read), 1.0
                continue
            raw = torch.from_numpy(self._file.raw(self._name, rows))
            weights = self._buffer.rows(len(raw), width)
            blocks, room = raw.view(-1, self._stored.nbytes), weights.view(-1, self._stored.weights)
            step = _DECODED_AT_ONCE // self._stored.weights
            for start in range(0, len(blocks), step):
                decode(blocks[start : start + step], room[start : start + step])
            if self._head:
                order = torch.arange(len(raw)).view(-1, self._head // 2, 2).transpose(1, 2)
                weights = self._buffer.turned(weights, order.reshape(-1))
            yield rows, self._buffer.ready(weights), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


def stored_matrix(stored: StoredTensor, buffer: Buffer) -> StoredMatrix:
    """Return a matrix that stays in its file."""
    if isinstance(stored.file, GgufWeights):
        return GgufMatrix(stored.file, stored.name, buffer)
    if isinstance(stored.file, TensorFile):
        return FileMatrix(stored.file, stored.name, buffer)
    raise TypeError(f"a {type(stored.file).__name__} has no rows that a product could read")


def times_transposed(values: Tensor, matrix: StoredMatrix) -> Tensor:
    """Return values @ W^T, (tokens, rows)."""
    result = torch.empty(len(values), matrix.shape[0])
    left = values.to(matrix.kind)
    for rows, weights, scale in matrix.parts():
        product_into(result[:, rows], left, weights.T)
        if isinstance(scale, Tensor):
            result[:, rows] *= scale
    return result


def times(values: Tensor, matrix: StoredMatrix) -> Tensor:
    """Return values @ W, (tokens, columns)."""
    result: Tensor | None = None
    for rows, weights, scale in matrix.parts():
        some = values[:, rows]
        if isinstance(scale, Tensor):
            some = some * scale
        some = some.to(matrix.kind)
        if result is None:
            result = torch.empty(len(values), matrix.shape[1])
            product_into(result, some, weights)
        else:
            product_added(result, some, weights)
    assert result is not None
    return result


def squared_lengths(matrix: StoredMatrix, *, transposed: bool) -> Tensor:
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
