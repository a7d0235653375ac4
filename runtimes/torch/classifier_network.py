"""The network of a classifier's folder: built, compared with its files, and given its numbers."""

from typing import Any

import numpy as np
import torch
from torch import nn

from edge_train.arrays.types import Array
from edge_train.formats.classifier_folder import ClassifierFolder, initial_head
from edge_train.formats.stored_blocks import StoredNetwork, checked_values
from edge_train.runtimes.torch.empty_network import configuration, empty_network
from edge_train.runtimes.torch.stored_network import load_buffers, look_up, refuse_missing

_WHAT = "sequence classifier"


def load_classifier(
    folder: ClassifierFolder, attention: str | None = None, seed: int = 0
) -> tuple[nn.Module, dict[str, Array]]:
    """Return the network and its parameters by name, in the same memory.

    A folder without a classifier on top (a plain encoder), or with one of other classes, gets one:
    small random numbers of a seed, the same in every process. So does a pooler that masked-language
    training left out.

    Raises:
      ModelError: transformers does not know this kind of network, or a tensor of the encoder is
        missing, has another shape than the configuration says or holds NaN.

    Memory:
      The weights once, in float32.
    """
    network = _empty(folder, attention)
    stored = stored_network(folder, network)
    refuse_missing(stored, folder.path, new=_may_be_new(network))
    for name, places in stored.places.items():
        if name in stored.sources:
            value = checked_values(np.asarray(stored.sources[name].value), name, folder.path)
        else:
            value = initial_head(name, tuple(network.get_parameter(name).shape), seed)
        shared = nn.Parameter(torch.from_numpy(value), requires_grad=False)
        for place in places:
            owner, _, last = place.rpartition(".")
            setattr(network.get_submodule(owner), last, shared)
    load_buffers(network, stored)
    return network, {name: one.detach().numpy() for name, one in network.named_parameters()}


def new_heads(folder: ClassifierFolder, network: Any) -> tuple[str, ...]:
    """Return the names of the parameters that no file of the folder holds: those on top."""
    return tuple(sorted(stored_network(folder, network).missing))


def look_at(folder: ClassifierFolder) -> tuple[str, ...]:
    """Return what a run will make anew, after comparing the folder's files with its configuration.

    Raises:
      ModelError: as `load_classifier`, but for values, which are not read.
    """
    network = _empty(folder, None)
    stored = stored_network(folder, network)
    refuse_missing(stored, folder.path, new=_may_be_new(network))
    return tuple(sorted(stored.missing))


def head_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters on top of the encoder."""
    encoder = f"{network.base_model_prefix}."
    return {name for name, _ in network.named_parameters() if not name.startswith(encoder)}


def _empty(folder: ClassifierFolder, attention: str | None) -> Any:
    from transformers import AutoModelForSequenceClassification

    config = configuration(folder.path, _WHAT)
    config.num_labels = len(folder.labels)
    config.pad_token_id = folder.pad  # decoders take the logits of the last id that is not it
    return empty_network(AutoModelForSequenceClassification, config, folder.path, _WHAT, attention)


def stored_network(folder: ClassifierFolder, network: Any) -> StoredNetwork:
    """Return where the files hold a network; outputs of other classes are left aside."""
    outputs: set[str] = set()
    if not folder.has_head:
        count = len(folder.labels)
        shapes = {name: network.get_parameter(name).shape for name in head_names(network)}
        outputs = {name for name, shape in shapes.items() if shape and shape[0] == count}
    return look_up(network, folder.weight_files(), folder.path, without=outputs)


def _may_be_new(network: Any) -> set[str]:
    """Return the names of what stands on top, and of the pooler between it and the encoder."""
    pooler = f"{network.base_model_prefix}.pooler."
    poolers = {name for name, _ in network.named_parameters() if name.startswith(pooler)}
    return head_names(network) | poolers
