"""Small safetensors files written whole or not at all, with a checksum of their data."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edge_train.errors import RunFolderError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it and rename it into place.

    Raises:
      RunFolderError: the disk is full or the folder cannot be written; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error


def save_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write named arrays and metadata strings to `path`, atomically, with a CRC-32 of the data."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    write_bytes(path, save(ordered, {**metadata, "crc32": _checksum(ordered)}))


def load_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and the metadata of a file that `save_tensors` wrote.

    Raises:
      RunFolderError: the file is missing, damaged or not ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}).") from error
    if metadata.pop("crc32", None) != _checksum(tensors):
        raise RunFolderError(f"{path}: the checksum of its data does not match; it is damaged.")
    return tensors, metadata


def _checksum(tensors: Mapping[str, NDArray[Any]]) -> str:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
