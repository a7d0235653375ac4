"""A network on a card beside the blocks on the host that a run changes."""

from collections.abc import Iterable

import torch
from torch import nn

from edge_train.arrays.types import Point
from edge_train.runtimes.torch.card import move_buffers


class CardCopies:
    """The trained parameters of a network that lies on a card, taken anew from the host.

    Update rules work on the host, on NumPy arrays, as they do for every engine; a card holds
    copies. They are taken before every call, whatever changed the blocks (a step, a checkpoint, a
    step that was rolled back), so a call costs the bytes of all trained blocks once over the bus,
    and a step with gradients the same bytes back.

    Args:
      network: on the card.
      trained: names of its trained parameters.
    """

    def __init__(self, network: nn.Module, trained: Iterable[str]) -> None:
        names = set(trained)
        self._live = {n: p for n, p in network.named_parameters() if n in names}

    def take(self, point: Point) -> None:
        """Give the network the numbers of a point, block by block."""
        with torch.no_grad():
            for name, parameter in self._live.items():
                parameter.copy_(torch.from_numpy(point[name]))


def move_network(network: nn.Module, device: torch.device) -> None:
    """Put the parameters and buffers of a network on a device, tied ones once.

    Memory: there the whole network; here what else holds the arrays it was made of.
    """
    moved: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # the old ones, so that ids stay
    for module in network.modules():
        for name, own in module._parameters.items():
            if own is None:
                continue
            if id(own) not in moved:
                there = nn.Parameter(own.detach().to(device), requires_grad=own.requires_grad)
                moved[id(own)] = own, there
            module._parameters[name] = moved[id(own)][1]
    move_buffers(network, device)
