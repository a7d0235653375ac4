"""A GGUF model with an adapter merged in: changed matrices in F16 or Q8_0, the rest as it was."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from edge_train.arrays.types import Array, Rows
from edge_train.errors import InputError
from edge_train.formats.gguf.encoding import WEIGHTS, encode
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.writing import (
    ALIGNMENT,
    NewTensor,
    count,
    gguf_parts,
    stored_values,
    word,
)

# What `--quant` says -> the type of changed matrices, and what general.file_type calls such a file.
KINDS = {"f16": ("F16", 1), "q8_0": ("Q8_0", 7)}
_QUANTIZATION_VERSION = 2  # of the blocks that llama.cpp writes today
_READ_BYTES = 1 << 20


class Changed(Protocol):
    """What becomes of a matrix."""

    def merged(self, weight: Rows) -> Iterator[Array]:
        """Yield its new rows, in order."""


def merged_parts(
    file: GgufFile, changed: Mapping[str, Changed], quant: str, name: str
) -> Iterator[bytes]:
    """Return the bytes of a model: metadata and tokenizer of `file`, and its tensors.

    A matrix whose rows blocks of 32 do not fill becomes F16 where Q8_0 was asked for.

    Args:
      changed: a tensor of the file -> what becomes of it, its rows in the order of the file.
      quant: a key of `KINDS`.
      name: of the new model.

    Raises:
      InputError: a number is too large for the type (while the bytes are made).

    Memory: two tiles of a matrix in float32, a megabyte of what is copied.
    """
    wanted, number = KINDS[quant]
    alignment = int(file.metadata.get("general.alignment", ALIGNMENT))
    values = {
        **stored_values(file.path),
        "general.name": word(name),
        "general.file_type": count(number),
        "general.quantization_version": count(_QUANTIZATION_VERSION),
    }
    tensors = {}
    for tensor, stored in file.tensors.items():
        if tensor in changed:
            kind = wanted if stored.shape[-1] % WEIGHTS == 0 else "F16"
            new = partial(_encoded, _Stored(file, tensor), changed[tensor], kind)
            tensors[tensor] = NewTensor(kind, stored.shape, new)
        else:
            same = partial(_copied, file, tensor)
            tensors[tensor] = NewTensor(stored.kind.name, stored.shape, same)
    return gguf_parts(values, tensors, alignment)


@dataclass(frozen=True)
class _Stored:
    """A matrix of a file, its rows in the order of the file."""

    file: GgufFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.tensors[self.name].shape

    def __getitem__(self, rows: slice) -> Array:
        out = np.empty((rows.stop - rows.start, self.shape[-1]), np.float32)
        self.file.rows_into(self.name, range(rows.start, rows.stop), out)
        return out


def _encoded(stored: _Stored, changed: Changed, kind: str) -> Iterator[bytes]:
    for rows in changed.merged(stored):
        try:
            yield encode(rows, kind)
        except OverflowError:
            raise InputError(
                f"tensor {stored.name!r} with the adapter has a weight of "
                f"{np.abs(rows).max():.3g}, and {kind} holds at most 65504; load the adapter "
                "beside its base instead."
            ) from None


def _copied(file: GgufFile, name: str) -> Iterator[bytes]:
    tensor = file.tensors[name]
    with file.path.open("rb", buffering=0) as source:
        source.seek(tensor.start)
        left = tensor.nbytes
        while left and (some := source.read(min(left, _READ_BYTES))):
            left -= len(some)
            yield some
