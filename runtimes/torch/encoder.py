"""A frozen text encoder in torch: hidden values of tokens, forward only."""

import gc
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_train.arrays.types import Array
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.stored_blocks import checked_values
from edge_train.memory.measure import give_back_memory
from edge_train.runtimes.torch.card import HOST, on_host, pick_device, repeatable
from edge_train.runtimes.torch.card_copies import move_network
from edge_train.runtimes.torch.empty_network import configuration, empty_network
from edge_train.runtimes.torch.stored_network import load_buffers, look_up, refuse_missing

_WHAT = "text encoder"


class TorchEncoder:
    """The encoder of a transformers folder in float32; nothing of it is trained.

    Args:
      device: `cpu` or `cuda`.

    Raises:
      InputError: `cuda` was named and there is none.
      ModelError: a weight file is damaged or does not fit its configuration.

    Memory: the weights once, and what a layer keeps of a call's texts.
    """

    def __init__(
        self,
        folder: ClassifierFolder,
        *,
        threads: int,
        attention: str | None = None,
        device: str = "cpu",
    ) -> None:
        torch.set_num_threads(threads)
        self._device = pick_device(device)
        self.network: Any = load_encoder(folder, attention)
        if self._device != HOST:
            move_network(self.network, self._device)

    def hidden(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
        """Return the last hidden values (texts, tokens, width) of padded ids (texts, tokens)."""
        with torch.no_grad(), repeatable(self._device):
            found = self.network(
                input_ids=torch.from_numpy(ids).to(self._device),
                attention_mask=torch.from_numpy(mask).to(self._device),
            )
        return on_host(found.last_hidden_state)

    def close(self) -> None:
        """Let go of the network."""
        self.network = None
        gc.collect()
        give_back_memory()


def load_encoder(folder: ClassifierFolder, attention: str | None = None) -> Any:
    """Return the network without anything on top; a pooler that no file holds is never called.

    Raises:
      ModelError: as above.
    """
    from transformers import AutoModel

    config = configuration(folder.path, _WHAT)
    network = empty_network(AutoModel, config, folder.path, _WHAT, attention)
    stored = look_up(network, folder.weight_files(), folder.path)
    new = {name for name, _ in network.named_parameters() if name.startswith("pooler.")}
    refuse_missing(stored, folder.path, new=new)
    for name, places in stored.places.items():
        if name in stored.sources:
            value = checked_values(np.asarray(stored.sources[name].value), name, folder.path)
        else:
            value = np.zeros(tuple(network.get_parameter(name).shape), np.float32)
        shared = nn.Parameter(torch.from_numpy(value), requires_grad=False)
        for place in places:
            owner, _, last = place.rpartition(".")
            setattr(network.get_submodule(owner), last, shared)
    load_buffers(network, stored)
    return network
