"""A trained language model as a folder that transformers loads, written tensor by tensor."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_file import StoredTensor, TensorFile
from edge_train.formats.tensor_store import safetensors_header

_READ_BYTES = 1 << 20


def write_language_model(
    folder: Path,
    parameters: Parameters,
    stored: Mapping[str, StoredTensor],
    files: Sequence[TensorFile],
    copied: Sequence[Path],
) -> None:
    """Write blocks in the files, names and types that they came from, and copies of other files.

    Args:
      stored: where a block came from; empty for a model that began with random weights, which
        becomes one file in float32.
      files: the weight files it came from; what in them is no block is copied.

    Raises:
      RunFolderError: the folder cannot be written.

    Memory: some rows of a matrix in float32.
    """
    try:
        folder.mkdir(exist_ok=True)
        for path in copied:
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    if not files:
        write_parts(folder / "model.safetensors", _fresh(parameters))
    names = {(where.file.path, where.name): name for name, where in stored.items()}
    for file in files:
        own = {tensor: name for (path, tensor), name in names.items() if path == file.path}
        write_parts(folder / file.path.name, _rewritten(file, own, parameters))


def _fresh(parameters: Parameters) -> Iterator[bytes]:
    """Yield a file of all blocks in float32."""
    shapes = {name: parameters.for_transform(name).shape for name in parameters}
    kinds = {name: ("F32", shape) for name, shape in shapes.items()}
    yield safetensors_header(kinds, {"format": "pt"})
    for name in sorted(shapes):
        for part in parameters.tiles(name):
            yield _encoded(part, "F32")


def _rewritten(file: TensorFile, own: Mapping[str, str], parameters: Parameters) -> Iterator[bytes]:
    """Yield a file that differs from `file` in the values of some tensors."""
    end = 0  # of what is written
    with file.path.open("rb", buffering=0) as source:
        for tensor, entry in sorted(file.entries.items(), key=lambda item: item[1].start):
            source.seek(end)
            yield from _copied(source, entry.start - end)
            end = entry.start + entry.nbytes
            if tensor in own:
                for part in parameters.tiles(own[tensor]):
                    yield _encoded(part, entry.dtype)
            else:
                source.seek(entry.start)
                yield from _copied(source, entry.nbytes)
        source.seek(end)
        yield from _copied(source, file.path.stat().st_size - end)


def _copied(source: IO[bytes], count: int) -> Iterator[bytes]:
    while count > 0 and (block := source.read(min(count, _READ_BYTES))):
        yield block
        count -= len(block)


def _encoded(values: Array, dtype: str) -> bytes:
    """Return float32 numbers as bytes of a type of the format; bfloat16 rounds to the nearest."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
