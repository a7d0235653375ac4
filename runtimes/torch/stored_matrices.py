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
from edge_train.runtimes.torch.card import HOST, on_host
from edge_train.runtimes.torch.gguf_rows import DECODERS
from edge_train.runtimes.torch.products import product_added, product_into

_WEIGHTS_AT_ONCE = 1 << 21  # of a matrix: 8 MiB in float32; products of less take longer
_DECODED_AT_ONCE = 1 << 18  # so that what is made of bytes stays in the processor's cache


class Buffer:
    """Room for the rows that are multiplied at the moment.

    Args:
      kind: the type of products: float32 or bfloat16.
      device: where products are computed.
    """

    def __init__(self, kind: torch.dtype = torch.float32, device: torch.device = HOST) -> None:
        self.kind, self.device = kind, device
        self._rows, self._turned = torch.empty(0, device=device), torch.empty(0, device=device)
        self._rounded = torch.empty(0, dtype=kind, device=device)

    def rows(self, count: int, width: int) -> Tensor:
        """Return room for so many rows in float32; the next call gives the same."""
        if self._rows.numel() < count * width:
            self._rows = torch.empty(count * width, device=self.device)
        return self._rows[: count * width].view(count, width)

    def turned(self, rows: Tensor, order: Tensor) -> Tensor:
        """Return rows in another order, in room of their own."""
        if self._turned.numel() < rows.numel():
            self._turned = torch.empty(rows.numel(), device=self.device)
        room = self._turned[: rows.numel()].view(rows.shape)
        return torch.index_select(rows, 0, order, out=room)

    def ready(self, rows: Tensor) -> Tensor:
        """Return rows in the type and on the device of products, in room of their own if moved."""
        if rows.dtype == self.kind and rows.device.type == self.device.type:
            return rows
        if self._rounded.numel() < rows.numel():
            self._rounded = torch.empty(rows.numel(), dtype=self.kind, device=self.device)
        return self._rounded[: rows.numel()].view(rows.shape).copy_(rows)


class StoredMatrix(Protocol):
    """A matrix (rows, columns) that is read some rows at a time, in the type of products.

    Attributes:
      device: where its rows are handed out.
    """

    shape: tuple[int, int]
    kind: torch.dtype
    device: torch.device

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
        self.kind, self.device = values.dtype, values.device
        self._values = values

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        yield slice(0, self.shape[0]), self._values, 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return self._values[ids].float()


class FloatMatrix:
    """A matrix that is held in float32 on the host, wherever and whatever products are in."""

    def __init__(self, values: Tensor, buffer: Buffer) -> None:
        self.shape = (values.shape[0], values.shape[1])
        self.kind, self.device = buffer.kind, buffer.device
        self._values, self._buffer = values, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        if self.kind == torch.float32 and self.device.type == "cpu":
            yield slice(0, self.shape[0]), self._values, 1.0
            return
        for rows in _slices(*self.shape):
            yield rows, self._buffer.ready(self._values[rows]), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return self._values[ids.cpu()].to(self.device)


class CodedMatrix:
    """A matrix in INT8 or INT4 that lies on the host, where training may change it."""

    def __init__(self, held: QuantizedParameters, name: str, buffer: Buffer) -> None:
        rows, columns = held.for_transform(name).shape
        self.shape = (rows, columns)
        self.kind, self.device = buffer.kind, buffer.device
        self._held, self._name, self._buffer = held, name, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        for rows in _slices(*self.shape):
            levels, scales = map(torch.from_numpy, self._held.levels(self._name, rows))
            yield rows, *_scaled(levels, scales.to(self.device), self.shape[1], self._buffer)

    def rows(self, ids: Tensor) -> Tensor:
        return torch.from_numpy(self._held.rows(self._name, on_host(ids))).to(self.device)


class FrozenCodes:
    """A matrix in INT8 or INT4 that nothing changes: its codes lie where products are computed."""

    def __init__(self, held: QuantizedParameters, name: str, buffer: Buffer) -> None:
        rows, columns = held.for_transform(name).shape
        self.shape = (rows, columns)
        self.kind, self.device = buffer.kind, buffer.device
        stored = held.stored()
        codes, scales = stored[name], stored[f"{name}:scale"]
        self._codes = torch.from_numpy(codes).to(self.device)
        self._scales = torch.from_numpy(scales.reshape(rows, -1)).to(self.device)
        self._bits, self._buffer = held.code.bits, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        for rows in _slices(*self.shape):
            levels = self._levels(self._codes[rows])
            yield rows, *_scaled(levels, self._scales[rows], self.shape[1], self._buffer)

    def rows(self, ids: Tensor) -> Tensor:
        levels, scales = self._levels(self._codes[ids]), self._scales[ids].float()
        values = levels.float().view(*scales.shape, -1) * scales.unsqueeze(-1)
        return values.view(levels.shape)[:, : self.shape[1]]

    def _levels(self, codes: Tensor) -> Tensor:
        """Return levels as `arrays/codes.py:Code.levels` does, (rows, padded width)."""
        if self._bits == 8:
            return codes
        return torch.cat(((codes << 4).view(torch.int8) >> 4, codes.view(torch.int8) >> 4), 1)


class FileMatrix:
    """A matrix that stays in its file: rows are read again for every product.

    What is read stands in the system's cache of files, which gives way to programs that need room;
    nothing of it is memory of this process.
    """

    def __init__(self, file: TensorFile, name: str, buffer: Buffer) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self.kind, self.device = buffer.kind, buffer.device
        self._file, self._name, self._buffer = file, name, buffer

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        for rows in _slices(*self.shape):
            read = torch.from_numpy(self._file.part(self._name, rows))
            yield rows, self._buffer.ready(read), 1.0

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


class GgufMatrix:
    """A matrix of a GGUF file, in the blocks that it has there; see `FileMatrix`.

    Args:
      moved: hold its blocks on the card, where they are decoded, instead of reading them again.
    """

    def __init__(
        self, file: GgufWeights, name: str, buffer: Buffer, *, moved: bool = False
    ) -> None:
        rows, columns = file.entries[name].shape
        self.shape = (rows, columns)
        self.kind, self.device = buffer.kind, buffer.device
        self._file, self._name, self._buffer = file, name, buffer
        self._stored, self._head = file.stored_as(name)
        self._blocks: Tensor | None = None
        if moved:
            parts = [self._raw(some) for some in _slices(rows, columns, self._head or 1)]
            self._blocks = torch.cat(parts)

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor | float]]:
        count, width = self.shape
        decode = DECODERS.get(self._stored.name)
        for rows in _slices(count, width, self._head or 1):
            if decode is None:
                read = torch.from_numpy(self._file.part(self._name, rows))
                yield rows, self._buffer.ready(read), 1.0
                continue
            raw = self._raw(rows) if self._blocks is None else self._blocks[rows]
            weights = self._buffer.rows(len(raw), width)
            blocks, room = raw.view(-1, self._stored.nbytes), weights.view(-1, self._stored.weights)
            step = _DECODED_AT_ONCE // self._stored.weights
            if self.device.type != "cpu":
                step = len(blocks)  # a card has no such cache, and each call costs it time
            for start in range(0, len(blocks), step):
                decode(blocks[start : start + step], room[start : start + step])
            if self._head:
                order = (
                    torch.arange(len(raw), device=self.device)
                    .view(-1, self._head // 2, 2)
                    .transpose(1, 2)
                )
                weights = self._buffer.turned(weights, order.reshape(-1))
            yield rows, self._buffer.ready(weights), 1.0

    def _raw(self, rows: slice) -> Tensor:
        return torch.from_numpy(self._file.raw(self._name, rows)).to(self.device)

    def rows(self, ids: Tensor) -> Tensor:
        return _looked_up(ids, lambda which: self._file.rows(self._name, which))


def stored_matrix(stored: StoredTensor, buffer: Buffer, *, moved: bool = False) -> StoredMatrix:
    """Return a matrix that stays in its file.

    Args:
      moved: of a GGUF file: onto the card, in its own blocks where these are decoded there, else
        in the type of products.
    """
    if isinstance(stored.file, GgufWeights):
        kind, _ = stored.file.stored_as(stored.name)
        if not moved or kind.name in DECODERS:
            return GgufMatrix(stored.file, stored.name, buffer, moved=moved)
        rows, columns = stored.shape
        whole = torch.empty(rows, columns, dtype=buffer.kind, device=buffer.device)
        for some in _slices(rows, columns):
            whole[some] = torch.from_numpy(stored.file.part(stored.name, some)).to(buffer.device)
        return WholeMatrix(whole)
    if isinstance(stored.file, TensorFile):
        return FileMatrix(stored.file, stored.name, buffer)
    raise TypeError(f"a {type(stored.file).__name__} has no rows that a product could read")


def times_transposed(values: Tensor, matrix: StoredMatrix) -> Tensor:
    """Return values @ W^T, (tokens, rows)."""
    result = torch.empty(len(values), matrix.shape[0], device=values.device)
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
            result = torch.empty(len(values), matrix.shape[1], device=values.device)
            product_into(result, some, weights)
        else:
            product_added(result, some, weights)
    assert result is not None
    return result


def squared_lengths(matrix: StoredMatrix, *, transposed: bool) -> Tensor:
    """Return the squared length of every row of W in float64, or of every column."""
    found = torch.zeros(matrix.shape[transposed], dtype=torch.float64, device=matrix.device)
    for rows, weights, scale in matrix.parts():
        squares = weights.double().square()
        if isinstance(scale, Tensor):
            squares *= scale.double().square().unsqueeze(1)
        if transposed:
            found += squares.sum(0)
        else:
            found[rows] = squares.sum(1)
    return found


def _scaled(
    levels: Tensor, scales: Tensor, width: int, buffer: Buffer
) -> tuple[Tensor, Tensor | float]:
    """Return weights (rows, width), and what each row is multiplied by.

    Args:
      levels: (rows, padded width) int8.
      scales: (rows, groups), on the device of products.
    """
    if scales.shape[1] == 1:  # of a whole row: it costs less outside
        weights = buffer.ready(levels)  # in bfloat16, too, levels are exact
        return weights[:, :width], scales[:, 0].float()
    weights = buffer.rows(*levels.shape).copy_(levels)
    weights.view(*scales.shape, -1).mul_(scales.float().unsqueeze(-1))
    return buffer.ready(weights[:, :width]), 1.0


def _slices(count: int, width: int, multiple: int = 1) -> Iterator[slice]:
    """Yield neighboring rows, as many as are in float32 at once."""
    step = max(1, _WEIGHTS_AT_ONCE // width // multiple) * multiple
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _looked_up(ids: Tensor, read: Any) -> Tensor:
    """Return rows by their numbers, of which each is read once."""
    found, places = torch.unique(ids, return_inverse=True)
    which: Sequence[int] = on_host(found).tolist()
    rows: np.ndarray[Any, Any] = read(which)
    return torch.from_numpy(rows).to(ids.device)[places]
