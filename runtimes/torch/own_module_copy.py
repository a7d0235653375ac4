"""A copy of somebody's module on a card: before every call it takes the numbers of the host's."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from edge_train.arrays.types import Point
from edge_train.errors import InputError
from edge_train.runtimes.torch.card import on_host
from edge_train.runtimes.torch.card_copies import CardCopies, move_network


class ModuleCopy:
    """A module on a card; the one on the host stays what is trained, saved and given back.

    Args:
      module: on the host.
      trained: names of its trained parameters.
      device: where the copy lies.

    Raises:
      InputError: the module cannot be copied.
    """

    def __init__(self, module: nn.Module, trained: Iterable[str], device: torch.device) -> None:
        try:
            self.module = deepcopy(module)
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"{type(module).__name__} cannot be copied to a card ({error}); use device cpu."
            ) from error
        self._on_host, self._device = module, device
        move_network(self.module, device)
        self._parameters = CardCopies(self.module, trained)

    def take(self, point: Point) -> None:
        """Give the copy the numbers of a point, and the buffers of the host's module."""
        self._parameters.take(point)
        with torch.no_grad():
            for there, here in zip(self.module.buffers(), self._on_host.buffers(), strict=True):
                there.copy_(here)

    def give_buffers(self) -> None:
        """Give the host's module the buffers of the copy: a step moves running statistics."""
        for there, here in zip(self.module.buffers(), self._on_host.buffers(), strict=True):
            here.copy_(torch.from_numpy(on_host(there)))

    def moved(self, batch: Any) -> Any:
        """Return a batch with its tensors on the card, in whatever lists and mappings they are.

        What has a method `to`, as a tensor and a batch of transformers have, is asked for it.
        """
        if callable(getattr(batch, "to", None)):
            return batch.to(self._device)
        if isinstance(batch, Mapping):
            return {name: self.moved(one) for name, one in batch.items()}
        if isinstance(batch, tuple) and hasattr(batch, "_fields"):
            return type(batch)(*map(self.moved, batch))
        if isinstance(batch, list | tuple):
            return type(batch)(map(self.moved, batch))
        return batch
