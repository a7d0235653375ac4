"""The device that torch computes on: which one a word means, what a run may take of it and holds.

Parameters and the state of an optimizer stay on the host, whatever computes: a checkpoint, an
update and a journal are then the same everywhere. A card holds what a pass reads and makes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.runtimes.torch.card_memory import CardMemory, limit_memory

__all__ = [
    "HOST",
    "CardMemory",
    "limit_memory",
    "move_buffers",
    "on_host",
    "pick_device",
    "products_type",
    "repeatable",
]

HOST = torch.device("cpu")
_HAS_BFLOAT16 = (8, 0)  # compute capability


def pick_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
      InputError: `cuda` was named and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; expected auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch finds none; use --device cpu.")
    found = "cuda" if name == "auto" and torch.cuda.is_available() else name
    return torch.device("cpu" if found == "auto" else found)


def products_type(device: torch.device) -> str:
    """Return the type of products that `--dtype auto` means on a device.

    bfloat16 on a card with units for it (compute capability 8.0, Ampere, and later): weights that
    are trained, sums and losses stay in float32. float16 needs its loss scaled, which no update
    rule here knows, so an older card multiplies float32, and so does a processor.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _HAS_BFLOAT16:
        return "float32"
    return "bfloat16"


def on_host(values: Tensor) -> Array:
    """Return the numbers of a tensor; those of the host itself, not a copy."""
    found: Array = values.detach().cpu().numpy()
    return found


def move_buffers(network: nn.Module, device: torch.device) -> None:
    """Put what a network holds beside its parameters on a device."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Compute attention in here so that the same call gives the same bits, on a card, too.

    Fused kernels of a card add up the gradients of keys in the order in which its parts are done.
    Matrices of probabilities take length^2 numbers for each head, of one layer at a time.
    """
    if device.type == "cpu":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    context: Any = sdpa_kernel(SDPBackend.MATH)
    with context:
        yield
