"""Small safetensors files written whole or not at all, with a checksum of their data."""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from edge_train.errors import ModelError, RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_file import TensorFile

_TYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "|i1": "I8",
    "|u1": "U8",
    "|b1": "BOOL",
}
_NUMPY_TYPES = {name: spelled for spelled, name in _TYPES.items()}
_READ_BYTES = 1 << 20
_DATA_SUM, _HEADER_SUM = "crc32", "header_crc32"  # files of older versions have the first alone

Kind = tuple[str, tuple[int, ...]]  # type as the format spells it, shape


def to_safetensors(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file: the same arrays and metadata always give the same bytes.

    The official writer puts metadata in an order that changes from process to process, so two
    equal files would have different hashes.

    Args:
      tensors: name -> array of one of the types in the format's list.
      metadata: strings only.

    Source: the safetensors format, version 0.4: length, JSON header, data.
    """
    return b"".join(safetensors_parts(tensors, metadata))


def safetensors_parts(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield the pieces of a safetensors file; those of contiguous arrays are not copied."""
    kinds = kinds_of(tensors)
    yield safetensors_header(kinds, metadata)
    for name in sorted(tensors):
        yield _content(tensors[name])


def safetensors_header(
    kinds: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Return what stands before the data of tensors, which follow in the order of their names.

    Args:
      kinds: name -> type as the format spells it, shape.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in sorted(kinds):
        dtype, shape = kinds[name]
        item_bytes = 2 if dtype == "BF16" else np.dtype(_NUMPY_TYPES[dtype]).itemsize
        end = start + math.prod(shape) * item_bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _content(values: NDArray[Any]) -> memoryview:
    """Return the bytes of an array, in C order."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def save_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write named arrays and metadata strings to `path`, atomically.

    With a CRC-32 of the data and one of all else: names, types, shapes and the other metadata.
    """
    sums = {
        _DATA_SUM: _checksum(tensors),
        _HEADER_SUM: _header_checksum(kinds_of(tensors), metadata),
    }
    write_parts(path, safetensors_parts(tensors, {**metadata, **sums}))


def kinds_of(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Kind]:
    """Return type and shape of every array, by its name."""
    return {name: (_TYPES[v.dtype.str], v.shape) for name, v in tensors.items()}


def _header_checksum(kinds: Mapping[str, Kind], metadata: Mapping[str, str]) -> str:
    said = [sorted(kinds.items()), sorted(metadata.items())]
    return f"{zlib.crc32(json.dumps(said).encode()):08x}"


def _check_sums(
    path: Path, kinds: Mapping[str, Kind], metadata: dict[str, str], data_sum: str
) -> None:
    """Compare the checksums of a file and take them out of its metadata.

    Raises:
      RunFolderError: one does not match.
    """
    if metadata.pop(_DATA_SUM, None) != data_sum:
        raise RunFolderError(f"{path}: the checksum of its data does not match; it is damaged.")
    header_sum = metadata.pop(_HEADER_SUM, None)
    if header_sum not in (None, _header_checksum(kinds, metadata)):
        raise RunFolderError(f"{path}: the checksum of its header does not match; it is damaged.")


def load_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and the metadata of a file that `save_tensors` wrote.

    Raises:
      RunFolderError: the file is missing, damaged or not ours.
    """
    tensors, metadata = read_tensors(path)
    if other := [name for name, value in tensors.items() if value.dtype.str not in _TYPES]:
        raise RunFolderError(f"{path}: {other[0][:80]!r} is of a type that is never written here.")
    _check_sums(path, kinds_of(tensors), metadata, _checksum(tensors))
    return tensors, metadata


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and the metadata of a small safetensors file, whoever wrote it.

    Raises:
      RunFolderError: the file is missing, no file, damaged, or of types that NumPy has not.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no ordinary file")
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}).") from error


class StoredTensors(Mapping[str, NDArray[Any]]):
    """The arrays of a file that `save_tensors` wrote, each read when it is asked for.

    Attributes:
      metadata: strings, without the checksums.
      kinds: type and shape of every array, by its name.

    Raises:
      RunFolderError: the file is missing, damaged or not ours. All of it is read once to know.
    """

    def __init__(self, path: Path) -> None:
        self.metadata = load_metadata(path)
        try:
            self._file = TensorFile(path)
            crc = self._checksum()
        except ModelError as error:
            raise RunFolderError(str(error)) from error
        self.kinds = {name: (e.dtype, e.shape) for name, e in self._file.entries.items()}
        _check_sums(path, self.kinds, self.metadata, crc)

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._file.entries[name]
        values = np.empty(entry.shape, _NUMPY_TYPES[entry.dtype])
        self._file.read_into(name, values.reshape(-1).view(np.uint8))
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._file.entries))

    def __len__(self) -> int:
        return len(self._file.entries)

    def _checksum(self) -> str:
        crc = 0
        with self._file.path.open("rb", buffering=0) as file:
            for name in self:
                entry = self._file.entries[name]
                crc = zlib.crc32(name.encode(), crc)
                file.seek(entry.start)
                left = entry.nbytes
                while left and (block := file.read(min(left, _READ_BYTES))):
                    crc, left = zlib.crc32(block, crc), left - len(block)
        return f"{crc:08x}"


def load_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file, without reading its data.

    Raises:
      RunFolderError: the file is missing or not safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}).") from error


def whole_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file that `save_tensors` wrote; its data is not read.

    Raises:
      RunFolderError: the file is missing or not ours, or its header is damaged.
    """
    metadata = load_metadata(path)
    try:
        entries = TensorFile(path).entries
    except ModelError as error:
        raise RunFolderError(str(error)) from error
    kinds = {name: (e.dtype, e.shape) for name, e in entries.items()}
    _check_sums(path, kinds, metadata, metadata.get(_DATA_SUM, ""))
    return metadata


def sha256_of(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the hash of named arrays: names, types, shapes and data."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode())
        digest.update(_content(values))
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, NDArray[Any]]) -> str:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(_content(tensors[name]), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def warm_up() -> None:
    """Multiply two small matrices, so that the work buffers for it are there to be counted."""
    square = np.ones((256, 256), np.float32)  # smaller ones are multiplied without
    np.dot(square, square)
