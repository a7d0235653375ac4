"""An adapter as llama.cpp and its kin load it beside a GGUF model.

Source: llama.cpp, `src/llama-adapter.cpp` and `convert_lora_to_gguf.py`. A matrix of the base named
NAME has `NAME.lora_a` (rank, inputs) and `NAME.lora_b` (outputs, rank); what is added to its output
is alpha / rank * the user's scale * B (A x). Rows of B stand where the file has the rows of its
matrix. The alpha of rsLoRA is what gives its scale that way.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.export.adapter_changes import changes_of
from edge_train.formats.adapter import Adapter
from edge_train.formats.gguf.weights import rows_as_stored, stored_name
from edge_train.formats.gguf.writing import NewTensor, count, gguf_parts, real, word

_ALL_F32 = 0


def adapter_parts(
    adapter: Adapter,
    blocks: Mapping[str, Array],
    kind: str,
    config: Mapping[str, Any],
    *,
    name: str,
    base: str,
) -> Iterator[bytes]:
    """Return the bytes of an adapter file, all in float32.

    Args:
      kind: the architecture of the base.
      config: of the base, as transformers has it.
      name: of the adapter.
      base: the name of the base, for people.

    Raises:
      InputError: the adapter says what such a file cannot.
    """
    tensors: dict[str, NewTensor] = {}
    for layer, change in sorted(changes_of(adapter, blocks).items()):
        place = place_of(layer, kind)
        if change.magnitude is not None:
            raise InputError(
                "an adapter of DoRA scales whole rows of its base, which no adapter.gguf can say; "
                "write the merged model instead: --to merged-gguf, or of a base that is a folder "
                "--to merged."
            )
        order = rows_as_stored(layer, kind, config, change.shape[0])
        stored = change.in_order(order)
        tensors[f"{place}.lora_a"] = _tensor(stored.first)
        tensors[f"{place}.lora_b"] = _tensor(stored.second)
    values = {
        "general.architecture": word(kind),
        "general.type": word("adapter"),
        "general.name": word(name),
        "general.file_type": count(_ALL_F32),
        "general.base_model.count": count(1),
        "general.base_model.0.name": word(base),
        "adapter.type": word("lora"),
        "adapter.lora.alpha": real(adapter.scale * adapter.rank),
    }
    return gguf_parts(values, tensors)


def place_of(layer: str, kind: str) -> str:
    """Return what a GGUF file calls the weight of an adapted layer.

    Raises:
      InputError: it has no such weight.
    """
    place = stored_name(layer, kind)
    if place is None:
        raise InputError(
            f"the adapter changes layer {layer!r}, which no GGUF file of a {kind} model has; load "
            "the folder of the adapter with peft."
        )
    return place


def _tensor(values: Array) -> NewTensor:
    return NewTensor("F32", values.shape, partial(_bytes, values))


def _bytes(values: Array) -> list[bytes]:
    return [np.ascontiguousarray(values, "<f4").tobytes()]
