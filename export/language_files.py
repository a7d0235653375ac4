"""A trained language model as a folder that transformers loads, written tensor by tensor."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_bytes, write_parts
from edge_train.formats.stored_blocks import Merged, Slices, Source
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.tensor_store import safetensors_header
from edge_train.formats.weight_files import VARIANTS

_READ_BYTES = 1 << 20


def write_language_model(
    folder: Path,
    parameters: Parameters,
    sources: Mapping[str, Source],
    files: Sequence[TensorFile],
) -> None:
    """Write blocks in the files, names and types that they came from.

    Every tensor that holds a block gets what was trained: a tied head that is stored beside its
    table, too. Files of a variant (`model.fp16.safetensors`) lose that word, so that readers find
    them by their usual names.

    Args:
      sources: where a block came from; empty for a model that began with random weights, which
        becomes one file in float32.
      files: the weight files it came from; what in them is no block is copied.

    Raises:
      RunFolderError: the folder cannot be written.

    Memory: some rows of a matrix in float32.
    """
    if not files:
        write_parts(folder / "model.safetensors", _fresh(parameters))
    new: dict[tuple[Path, str], Callable[[], Iterable[Array]]] = {}
    for name, source in sources.items():
        value = source.value
        pieces = value.pieces if isinstance(value, Merged) else ((value, ()),)
        for tensor, at in (*pieces, *((copy, ()) for copy in source.copies)):
            new[tensor.file.path, tensor.name] = partial(_values, parameters, name, at)
    write_changed(folder, files, new)


def write_changed(
    folder: Path,
    files: Sequence[TensorFile],
    new: Mapping[tuple[Path, str], Callable[[], Iterable[Array]]],
) -> None:
    """Write the weight files of a model with other numbers in some tensors, types as they were.

    Args:
      new: file and tensor -> makes its numbers, in order.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    names: dict[str, str] = {}
    for file in files:
        part = {tensor: values for (path, tensor), values in new.items() if path == file.path}
        name = _plain_name(file.path.name)
        names |= dict.fromkeys(file.entries, name)
        write_parts(folder / name, _rewritten(file, part))
    if len(files) > 1:
        size = sum(entry.nbytes for file in files for entry in file.entries.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(names.items()))}
        text = json.dumps(index, indent=2) + "\n"
        write_bytes(folder / "model.safetensors.index.json", text.encode())


def _values(parameters: Parameters, block: str, at: Slices) -> Iterable[Array]:
    """Return the numbers of a block, or of a part of it."""
    return [parameters[block][at]] if at else parameters.tiles(block)


def _plain_name(name: str) -> str:
    """Return the name of a weight file without a variant.

    >>> _plain_name("model.fp16-00001-of-00002.safetensors"), _plain_name("model.fp16.safetensors")
    ('model-00001-of-00002.safetensors', 'model.safetensors')
    """
    for variant in filter(None, VARIANTS):
        name = name.replace(f"{variant}-", "-").replace(f"{variant}.safetensors", ".safetensors")
    return name


def _fresh(parameters: Parameters) -> Iterator[bytes]:
    """Yield a file of all blocks in float32."""
    shapes = {name: parameters.for_transform(name).shape for name in parameters}
    kinds = {name: ("F32", shape) for name, shape in shapes.items()}
    yield safetensors_header(kinds, {"format": "pt"})
    for name in sorted(shapes):
        for part in parameters.tiles(name):
            yield encoded(part, "F32")


def _rewritten(
    file: TensorFile, new: Mapping[str, Callable[[], Iterable[Array]]]
) -> Iterator[bytes]:
    """Yield a file that differs from `file` in the numbers of some tensors."""
    end = 0  # of what is written
    with file.path.open("rb", buffering=0) as source:
        for tensor, entry in sorted(file.entries.items(), key=lambda item: item[1].start):
            source.seek(end)
            yield from _copied(source, entry.start - end)
            end = entry.start + entry.nbytes
            if tensor in new:
                for part in new[tensor]():
                    yield encoded(part, entry.dtype)
            else:
                source.seek(entry.start)
                yield from _copied(source, entry.nbytes)
        source.seek(end)
        yield from _copied(source, file.path.stat().st_size - end)


def _copied(source: IO[bytes], count: int) -> Iterator[bytes]:
    while count > 0 and (block := source.read(min(count, _READ_BYTES))):
        yield block
        count -= len(block)


def encoded(values: Array, dtype: str) -> bytes:
    """Return float32 numbers as bytes of a type of the format; bfloat16 rounds to the nearest."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
