"""The network of a language model's folder: built without memory, and where its numbers are."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from edge_train.arrays.types import Block
from edge_train.errors import ModelError
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.stored_blocks import Source, StoredNetwork
from edge_train.protocols import Layer
from edge_train.rng import Key
from edge_train.runtimes.torch.dropping import Draws
from edge_train.runtimes.torch.empty_network import configuration, empty_network
from edge_train.runtimes.torch.held_layers import (
    is_plain_linear,
)
from edge_train.runtimes.torch.layers import layers_of
from edge_train.runtimes.torch.stored_network import look_up, refuse_missing

_WHAT = "causal language model"
# Layers that the module around them does not call: it reads their weights.
_READ_BY = dict.fromkeys(("MambaMixer", "FalconMambaMixer", "JambaMambaMixer"), ("dt_proj",))
_START = -5  # the step of the key that random weights are drawn from


def build_network(folder: LanguageFolder, attention: str | None = None) -> nn.Module:
    """Return the network of a folder with weights that take no memory.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    from transformers import AutoModelForCausalLM

    known = None if folder.made is None else folder.config
    config = configuration(folder.path, _WHAT, known)
    network: nn.Module = empty_network(AutoModelForCausalLM, config, folder.path, _WHAT, attention)
    return network


def stored_network(folder: LanguageFolder, network: nn.Module) -> StoredNetwork:
    """Return the blocks of a network, and where the files hold them, if there are any.

    Raises:
      ModelError: one is missing, or has another shape.
    """
    stored = look_up(network, folder.files, folder.path)
    if folder.files:
        refuse_missing(stored, folder.path)
    return stored


def decoder_layers(network: Any) -> Iterator[nn.Module]:
    """Yield the layers that are computed one after the other.

    Raises:
      ModelError: there is no list of as many modules as the configuration has layers.
    """
    wanted = network.config.num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            yield from module
            return
    raise ModelError(f"a {type(network).__name__} has no list of {wanted} layers to go through.")


def parameter_shapes(folder: LanguageFolder) -> dict[str, tuple[int, ...]]:
    """Return the shape of every trained block by name; tied ones once.

    Raises:
      ModelError: transformers does not know this kind of network, or a tensor is missing.
    """
    network = build_network(folder)
    places = stored_network(folder, network).places
    return {name: tuple(network.get_parameter(name).shape) for name in places}


def network_layers(folder: LanguageFolder) -> list[Layer]:
    """Return the layers of a folder's network.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    network = build_network(folder)
    places = stored_network(folder, network).places
    return layers_of(network, {place: name for name, at in places.items() for place in at})


def sources(folder: LanguageFolder) -> Mapping[str, Source]:
    """Return where the files hold every block.

    Raises:
      ModelError: a tensor is missing.
    """
    return stored_network(folder, build_network(folder)).sources


def stored_values(stored: StoredNetwork) -> Iterator[tuple[str, Block]]:
    """Yield every block as its files hold it."""
    for name in stored.places:
        yield name, stored.sources[name].value


def drawn(network: Any, stored: StoredNetwork, seed: int) -> Iterator[tuple[str, Block]]:
    """Yield start values as GPT-2 and Llama draw them; vectors are those of norms and biases.

    Matrices are normal with the configuration's `initializer_range`. Those that GPT-2 adds to its
    residual stream are smaller by the root of their number.
    """
    deviation = float(getattr(network.config, "initializer_range", 0.02))
    residual = 1 / math.sqrt(2 * network.config.num_hidden_layers)
    for name in stored.places:
        shape = tuple(network.get_parameter(name).shape)
        if len(shape) > 1:
            draw = Key(seed, _START).generator("weights", name)
            value = draw.standard_normal(shape, np.float32)
            value *= np.float32(deviation * (residual if name.endswith("c_proj.weight") else 1.0))
        else:
            value = np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
        yield name, value


def is_held(network: nn.Module, place: str) -> bool:
    """Return whether a parameter is the matrix of a layer that can compute from `Weights`."""
    owner, _, last = place.rpartition(".")
    parent, _, own = owner.rpartition(".")
    if last != "weight" or own in _READ_BY.get(type(network.get_submodule(parent)).__name__, ()):
        return False
    module = network.get_submodule(owner)
    return isinstance(module, nn.Embedding) or is_plain_linear(module)


def recomputed(forward: Callable[..., Any], draws: Draws) -> Callable[..., Any]:
    """Return a layer's forward pass that keeps its inputs only, and runs again when asked.

    Again it draws what it drew before: the count of draws is set back to where the layer began.
    """

    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        run = forward if draws.mode is None else draws.mode.the_same_again(forward)
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return again
