"""The weights of a graph as ONNX external data: one tensor after another, aligned for mapping."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_train.formats.artifact import ArtifactTensor

PAGE = 4096  # bytes; where a larger tensor begins, so that an engine can map it
_CACHE_LINE = 64  # bytes; where a smaller one begins
Role = Literal["weight", "quantized", "scale", "zero_point", "bias"]


class WeightFile:
    """Appends tensors to one file; only the tensor being written is in memory.

    Attributes:
      tensors: what was written, for the manifest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self.tensors: list[ArtifactTensor] = []

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(
        self, name: str, array: NDArray[np.float32 | np.int8 | np.uint8 | np.int32], role: Role
    ) -> ir.Value:
        """Write one tensor and return the initializer that reads it."""
        content = np.ascontiguousarray(array).tobytes()
        alignment = PAGE if len(content) >= PAGE else _CACHE_LINE
        offset = -(-self._file.tell() // alignment) * alignment
        self._file.write(bytes(offset - self._file.tell()))
        self._file.write(content)
        self.tensors.append(
            ArtifactTensor(
                name=name,
                file=self._path.name,
                offset=offset,
                bytes=len(content),
                shape=array.shape,
                dtype=str(array.dtype),
                role=role,
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
        return _initializer(self._path, self.tensors[-1])


class StoredWeights:
    """A weight file that was written before, where another graph finds its tensors by name."""

    def __init__(self, path: Path, tensors: Sequence[ArtifactTensor]) -> None:
        self._path = path
        self._stored = {tensor.name: tensor for tensor in tensors if tensor.file == path.name}

    def add(
        self, name: str, array: NDArray[np.float32 | np.int8 | np.uint8 | np.int32], role: Role
    ) -> ir.Value:
        """Return the initializer that reads a tensor that the file has already.

        Raises:
          ValueError: it has no such tensor, or another one by that name.
        """
        stored = self._stored.get(name)
        found = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        if stored is None or (stored.sha256, stored.role) != (found, role):
            raise ValueError(f"{self._path.name} does not hold this {name}")
        return _initializer(self._path, stored)


def _initializer(path: Path, stored: ArtifactTensor) -> ir.Value:
    shape, kind = ir.Shape(stored.shape), ir.DataType.from_numpy(np.dtype(stored.dtype))
    tensor = ir.ExternalTensor(
        path.name,
        stored.offset,
        stored.bytes,
        kind,
        shape=shape,
        name=stored.name,
        base_dir=path.parent,
    )
    return ir.Value(name=stored.name, shape=shape, type=ir.TensorType(kind), const_value=tensor)
