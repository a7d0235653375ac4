"""One GGUF file: its metadata and tensor table, checked whole, and rows of tensors as float32."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.gguf.blocks import BLOCK_TYPES, OTHER_TYPES, BlockType
from edge_train.formats.gguf.reading import HeaderReader

SUFFIX = ".gguf"
_MAGIC, _OLD_MAGICS = b"GGUF", (b"lmgg", b"tjgg", b"fmgg", b"algg")
_VERSIONS = (2, 3)
_MOST_KEYS = _MOST_TENSORS = 65_536
_MOST_SIDES, _MOST_NAME_BYTES = 4, 63
_MOST_SIDE = 1 << 40
_ALIGNMENT, _MOST_ALIGNMENT = 32, 1 << 20
_PIECE_BYTES = 1 << 20  # of float32 that are decoded at once


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies.

    Attributes:
      shape: as NumPy has it, the contiguous side last.
      start: of its first byte in the file.
    """

    kind: BlockType
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the last side."""
        return self.shape[-1] // self.kind.weights * self.kind.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape[:-1]) * self.row_bytes


class GgufFile:
    """Metadata and tensors of a file of version 2 or 3, little endian.

    Rows are read by plain file reads, never mapped: pages of a mapped file count as memory of this
    process, and a file that becomes shorter would end it by a signal.

    Attributes:
      metadata: key -> value, as `HeaderReader.value` returns it.
      tensors: name -> where it lies.

    Raises:
      ModelError: it is missing, damaged, cut short, one part of several, or has a type of tensor
        that is not decoded here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: Mapping[str, Any]
        self.tensors: Mapping[str, GgufTensor]
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise ValueError("no ordinary file")
            with path.open("rb") as file:
                size = path.stat().st_size
                self.metadata, self.tensors = _read(file, size)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise ModelError(
                f"{path}: cannot be used as a GGUF file ({error}); copy or download it again."
            ) from error
        parts = self.metadata.get("split.count", 1)
        if type(parts) is not int or parts not in (0, 1):  # 0 is what llama.cpp joined
            number = " ".join(str(parts).split())[:40]
            raise ModelError(
                f"{path}: is one of {number} parts of a model; join them once with llama.cpp's "
                "`llama-gguf-split --merge FIRST OUT` and name that file."
            )
        for name, tensor in self.tensors.items():
            if tensor.kind.name not in _DECODED:
                raise ModelError(
                    f"{path}: tensor {name!r} is stored as {tensor.kind.name}, which is not read; "
                    f"take a version of this model in one of {', '.join(sorted(_DECODED))} "
                    "(Q4_K_M and Q8_0 are the usual ones)."
                )

    def word(self, key: str) -> str:
        """Return a word of the metadata; in words what is there instead, such as 'None'."""
        found = self.metadata.get(key)
        return found if isinstance(found, str) else " ".join(str(found).split())[:60]

    def rows_into(self, name: str, rows: Sequence[int] | range, out: NDArray[np.float32]) -> None:
        """Decode rows of a tensor's last side into `out`, (rows, weights).

        Args:
          rows: in any order; neighbors are read at once.

        Raises:
          ModelError: the file became shorter.

        Memory: at most six megabytes, whatever the tensor's size.
        """
        tensor = self.tensors[name]
        step = max(1, _PIECE_BYTES // (4 * max(1, tensor.shape[-1])))
        with self.path.open("rb", buffering=0) as file:
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                raw = np.empty((len(some), tensor.row_bytes), np.uint8)
                for first, last in _runs(some):
                    place = tensor.start + some[first] * tensor.row_bytes
                    _fill(file, place, raw[first:last], self.path)
                with np.errstate(invalid="ignore", over="ignore"):  # who trains asks if finite
                    found = tensor.kind.decode(raw.reshape(-1, tensor.kind.nbytes))
                out[start : start + len(some)] = found.reshape(len(some), -1)

    def raw_rows(self, name: str, rows: slice) -> NDArray[np.uint8]:
        """Return neighboring rows of a tensor as they are stored, (rows, bytes).

        Raises:
          ModelError: the file became shorter.
        """
        tensor = self.tensors[name]
        raw = np.empty((rows.stop - rows.start, tensor.row_bytes), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            _fill(file, tensor.start + rows.start * tensor.row_bytes, raw, self.path)
        return raw


_DECODED = frozenset(kind.name for kind in BLOCK_TYPES.values())


def _read(file: IO[bytes], size: int) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """Return metadata and tensors.

    Raises:
      ValueError: what is wrong, as part of a sentence.
    """
    magic = file.read(4)
    if magic in _OLD_MAGICS:
        raise ValueError("it is a GGML file of before GGUF, which is not read")
    if magic != _MAGIC:
        raise ValueError(f"it begins with {magic!r}, expected {_MAGIC!r}")
    reader = HeaderReader(file, size)
    version = reader.number("I")
    if version and version % (1 << 16) == 0:
        raise ValueError("it is big endian, and only little endian is read")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}, and 2 and 3 are read")
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    if tensor_count > _MOST_TENSORS or key_count > _MOST_KEYS:
        raise ValueError(
            f"it claims {tensor_count} tensors and {key_count} keys, at most {_MOST_TENSORS} of "
            "each are read"
        )
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = reader.name()
        if key in metadata:
            raise ValueError(f"key {key!r} is there twice")
        metadata[key] = reader.value()
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= _MOST_ALIGNMENT:
        raise ValueError(f"general.alignment is {str(alignment)[:40]}")
    if alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment}, which is no power of two")
    found: dict[str, GgufTensor] = {}
    for _ in range(tensor_count):
        name = reader.name(_MOST_NAME_BYTES)
        if name in found:
            raise ValueError(f"tensor {name!r} is there twice")
        found[name] = _tensor(reader, name, alignment)
    base = -(-file.tell() // alignment) * alignment
    placed = {
        name: GgufTensor(one.kind, one.shape, base + one.start) for name, one in found.items()
    }
    _check_places(placed, size)
    return metadata, placed


def _tensor(reader: HeaderReader, name: str, alignment: int) -> GgufTensor:
    """Return one line of the table; `start` counts from where the data begins.

    Raises:
      ValueError: as `_read`.
    """
    sides = reader.number("I")
    if not 1 <= sides <= _MOST_SIDES:
        raise ValueError(f"tensor {name!r} has {sides} sides, expected 1 to {_MOST_SIDES}")
    shape = tuple(reader.number("Q") for _ in range(sides))[::-1]
    number, start = reader.number("I"), reader.number("Q")
    if not all(shape) or math.prod(shape) > _MOST_SIDE:
        raise ValueError(f"tensor {name!r} is {list(shape)}")
    if number in BLOCK_TYPES:
        kind = BLOCK_TYPES[number]
    elif number in OTHER_TYPES:  # refused by its name, and its bytes are not looked for
        kind = BlockType(OTHER_TYPES[number], 1, 0, lambda part: part.astype(np.float32))
    else:
        raise ValueError(f"tensor {name!r} has type {number}, which nobody knows")
    if shape[-1] % kind.weights:
        raise ValueError(
            f"tensor {name!r} has rows of {shape[-1]}, which blocks of {kind.weights} do not fill"
        )
    if start % alignment:
        raise ValueError(f"tensor {name!r} begins at {start}, no multiple of {alignment}")
    return GgufTensor(kind, shape, start)


def _check_places(tensors: Mapping[str, GgufTensor], size: int) -> None:
    """Refuse tensors that lie outside of the file, or share bytes.

    Raises:
      ValueError: as `_read`.
    """
    end, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start < end:
            raise ValueError(f"tensors {before!r} and {name!r} share bytes")
        end, before = tensor.start + tensor.nbytes, name
        if end > size:
            raise ValueError(f"it has {size} bytes, and tensor {name!r} would end at {end}")


def _runs(rows: Sequence[int] | range) -> list[tuple[int, int]]:
    """Return where runs of neighbors begin and end.

    >>> _runs([4, 5, 6, 2, 3]), _runs(range(2, 5))
    ([(0, 3), (3, 5)], [(0, 3)])
    """
    cuts = [at for at in range(1, len(rows)) if rows[at] != rows[at - 1] + 1]
    return list(zip([0, *cuts], [*cuts, len(rows)], strict=True))


def _fill(file: IO[bytes], start: int, buffer: NDArray[np.uint8], path: Path) -> None:
    file.seek(start)
    view = memoryview(buffer.reshape(-1).data).cast("B")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise ModelError(f"{path}: became shorter while it was read; copy it again.")
        view = view[count:]
