"""A network whose matrices are held as they are stored, with adapters beside its linear layers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters, QuantizedParameters
from edge_train.errors import ModelError
from edge_train.formats.adapter import Target
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.stored_blocks import StoredNetwork, checked_values
from edge_train.formats.tensor_file import StoredTensor
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load
from edge_train.runtimes.torch.adapted_layers import (
    AdaptedLinear,
    Adapting,
    FrozenLinear,
    frozen_embedding,
)
from edge_train.runtimes.torch.language_network import (
    build_network,
    decoder_layers,
    drawn,
    is_held,
    stored_values,
)
from edge_train.runtimes.torch.stored_matrices import (
    Buffer,
    CodedMatrix,
    FrozenCodes,
    StoredMatrix,
    WholeMatrix,
    stored_matrix,
)


def linear_layers(folder: LanguageFolder) -> tuple[Target, ...]:
    """Return the linear layers that an adapter may stand beside: those of the decoder's layers.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    network = build_network(folder)
    inside = {id(module) for layer in decoder_layers(network) for module in layer.modules()}
    found = []
    for path, module in network.named_modules():
        if id(module) in inside and is_held(network, f"{path}.weight"):
            transposed = type(module).__name__ == "Conv1D"
            first, second = network.get_parameter(f"{path}.weight").shape
            outputs, inputs = (second, first) if transposed else (first, second)
            found.append(Target(path, outputs, inputs, transposed))
    return tuple(found)


@dataclass(frozen=True)
class Base:
    """How the base is held.

    Attributes:
      stays: whether matrices stay in their file.
      moved: whether they are held on a card all the same, in the blocks of that file.
      seed: of random weights.
    """

    quant: str
    stays: bool
    moved: bool
    seed: int
    buffer: Buffer


def install(
    network: Any, folder: LanguageFolder, stored: StoredNetwork, adapting: Adapting, base: Base
) -> dict[str, AdaptedLinear]:
    """Give a network its numbers; return the layers with an adapter, by their paths.

    Raises:
      ModelError: a target is no linear layer of it, or in few bits a matrix is of something else.
    """
    held, plain = _apart(network, folder, stored, base)
    for name, value in plain.items():
        for place in stored.places[name]:
            owner, _, last = place.rpartition(".")
            moved = value.to(base.buffer.device)
            setattr(network.get_submodule(owner), last, nn.Parameter(moved, requires_grad=False))
    wanted = {target.path: target for target in adapting.adapter.targets}
    adapted: dict[str, AdaptedLinear] = {}
    for name, matrix in held.items():
        for place in stored.places[name]:
            owner = place.rpartition(".")[0]
            module: Any = network.get_submodule(owner)
            if isinstance(module, nn.Embedding):
                network.set_submodule(owner, frozen_embedding(module, matrix))
                continue
            transposed = type(module).__name__ == "Conv1D"
            if owner not in wanted:
                network.set_submodule(
                    owner, FrozenLinear(matrix, module.bias, transposed=transposed)
                )
                continue
            _check_target(folder, wanted[owner], matrix, transposed=transposed)
            made = AdaptedLinear(adapting, owner, matrix, module.bias, transposed=transposed)
            network.set_submodule(owner, made)
            adapted[owner] = made
    if missing := [path for path in wanted if path not in adapted]:
        raise ModelError(
            f"{folder.path}: has no linear layer {missing[0]!r}, which the adapter stands beside; "
            "this is an adapter of another base."
        )
    return adapted


def _apart(
    network: Any, folder: LanguageFolder, stored: StoredNetwork, base: Base
) -> tuple[dict[str, StoredMatrix], dict[str, Tensor]]:
    """Return the matrices that layers read some rows at a time, and all other numbers.

    Raises:
      ModelError: in few bits, a matrix is of neither a linear layer nor an embedding.
    """
    by_rows = {
        name
        for name, places in stored.places.items()
        if all(is_held(network, place) for place in places)
    }
    held: dict[str, StoredMatrix] = {}
    if base.stays and folder.files:
        for name in by_rows:
            source = stored.sources[name].value
            if isinstance(source, StoredTensor):
                held[name] = stored_matrix(source, base.buffer, moved=base.moved)
    values = stored_values(stored) if folder.files else drawn(network, stored, base.seed)
    rest = ((name, value) for name, value in values if name not in held)
    kind: type[Parameters] = load(required(quants.get(base.quant).trained))
    plain: dict[str, Tensor] = {}
    if kind is Parameters:
        for name, value in rest:
            whole = checked_values(np.asarray(value, np.float32), name, folder.path)
            tensor = torch.from_numpy(whole)
            if name in by_rows:
                moved = tensor.to(base.buffer.device, base.buffer.kind)
                held[name] = WholeMatrix(moved)
            else:
                plain[name] = tensor
        return held, plain
    coded = kind(rest)
    for name in coded:
        if isinstance(coded, QuantizedParameters) and coded.is_quantized(name):
            if name not in by_rows:
                raise ModelError(
                    f"{folder.path}: {name} is a matrix of a layer that is not linear, which "
                    "cannot be held in few bits; use --quant none."
                )
            kind_of = FrozenCodes if base.moved else CodedMatrix
            held[name] = kind_of(coded, name, base.buffer)
        else:
            plain[name] = torch.from_numpy(coded[name])
    return held, plain


def _check_target(
    folder: LanguageFolder, target: Target, matrix: StoredMatrix, *, transposed: bool
) -> None:
    """Refuse an adapter whose matrices do not fit a layer.

    Raises:
      ModelError: they do not.
    """
    outputs, inputs = matrix.shape[::-1] if transposed else matrix.shape
    if (target.outputs, target.inputs) != (outputs, inputs):
        raise ModelError(
            f"{folder.path}: layer {target.path!r} has {inputs} inputs and {outputs} outputs, the "
            f"adapter {target.inputs} and {target.outputs}; this is an adapter of another base."
        )
