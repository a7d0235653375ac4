"""One safetensors file, read by plain file reads: a tensor or a row at a time, never mapped."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHER_BYTES = {"I64": 8, "U64": 8, "C64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
_OTHER_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}
_MOST_HEADER_BYTES = 100_000_000  # as the safetensors package has it


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in a file: type as safetensors spells it, shape, byte range."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def is_float(self) -> bool:
        """Whether `TensorFile` can read it as float32."""
        return self.dtype in _ITEM_BYTES


class WeightFile(Protocol):
    """What holds the tensors of a model by name, and hands them out as float32."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Tensor name -> its shape, and the type that it is handed out from."""

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a whole tensor."""

    def part(self, name: str, rows: slice) -> NDArray[np.float32]:
        """Return neighboring rows."""

    def rows(self, name: str, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return some rows of a matrix, in any order."""


class TensorFile:
    """Names, types and places of the tensors of one file; opening it checks that it is whole.

    The safetensors package maps the file instead, and every page it touches then counts as memory
    of this process until the last tensor is gone.

    Attributes:
      entries: tensor name -> where it lies.

    Raises:
      ModelError: the file is missing, damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise ValueError
            with path.open("rb") as file:
                size = path.stat().st_size
                header_bytes = int.from_bytes(file.read(8), "little")
                if size < 8 or header_bytes > min(size - 8, _MOST_HEADER_BYTES):
                    raise ValueError
                header = json.loads(file.read(header_bytes), object_pairs_hook=_unique)
            header.pop("__metadata__", None)
            self.entries = {
                name: _entry(entry, 8 + header_bytes, size) for name, entry in header.items()
            }
            _check_apart(self.entries.values(), size)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"{path}: not a whole safetensors file (damaged or cut short); copy or download "
                "it again."
            ) from error

    def read_into(self, name: str, buffer: NDArray[np.uint8]) -> None:
        """Fill `buffer` (as many bytes as the tensor has) with the raw bytes of one tensor."""
        with self.path.open("rb", buffering=0) as file:
            _fill(file, self.entries[name].start, buffer, self.path)

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a whole float tensor as float32."""
        entry = self.entries[name]
        raw = np.empty(entry.nbytes, np.uint8)
        self.read_into(name, raw)
        return _to_float32(raw, entry.dtype).reshape(entry.shape)

    def part(self, name: str, rows: slice) -> NDArray[np.float32]:
        """Return neighboring rows of a float tensor as float32; only these are read."""
        entry = self.entries[name]
        row_bytes = entry.nbytes // entry.shape[0]
        raw = np.empty((rows.stop - rows.start) * row_bytes, np.uint8)
        with self.path.open("rb", buffering=0) as file:
            _fill(file, entry.start + rows.start * row_bytes, raw, self.path)
        return _to_float32(raw, entry.dtype).reshape(-1, *entry.shape[1:])

    def rows(self, name: str, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return some rows of a two-dimensional float tensor as float32; only these are read."""
        entry = self.entries[name]
        row_bytes = entry.nbytes // entry.shape[0]
        raw = np.empty((len(indices), row_bytes), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for row, index in zip(raw, indices, strict=True):
                _fill(file, entry.start + index * row_bytes, row, self.path)
        return _to_float32(raw, entry.dtype)


@dataclass(frozen=True)
class StoredTensor:
    """A float tensor of a file, read as float32 when rows of it are asked for."""

    file: WeightFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.file.entries[self.name].shape

    @property
    def ndim(self) -> int:
        """How many sides it has."""
        return len(self.shape)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Return neighboring rows."""
        return self.file.part(self.name, rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all of it."""
        whole = self.file.read(self.name)
        return whole if dtype is None else whole.astype(dtype, copy=False)


def _entry(entry: Mapping[str, Any], base: int, size: int) -> TensorEntry:
    """Return one checked line of a safetensors header."""
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or any(type(n) is not int or n < 0 for n in (*shape, start, end)):
        raise ValueError
    item_bytes = _ITEM_BYTES.get(kind) or _OTHER_BYTES.get(kind)
    if not start <= end <= size - base:
        raise ValueError
    if item_bytes is not None and end - start != math.prod(shape) * item_bytes:
        raise ValueError
    return TensorEntry(kind, tuple(shape), base + start, end - start)


def _check_apart(entries: Iterable[TensorEntry], size: int) -> None:
    """Refuse tensors of which two share bytes, and bytes behind the last one of a file.

    A small file would stand for any amount of memory, or a large one for nothing.
    """
    end = 0
    for entry in sorted((one for one in entries if one.nbytes), key=lambda one: one.start):
        if entry.start < end:
            raise ValueError
        end = entry.start + entry.nbytes
    if end and end != size:
        raise ValueError


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _fill(file: Any, start: int, buffer: NDArray[np.uint8], path: Path) -> None:
    file.seek(start)
    view = memoryview(buffer.data).cast("B")
    while view:
        count = file.readinto(view)
        if not count:
            raise ModelError(f"{path}: became shorter while it was read; copy it again.")
        view = view[count:]


def _to_float32(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """Return rows of raw bytes as float32; exact for every 16-bit float."""
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype(np.float32)
