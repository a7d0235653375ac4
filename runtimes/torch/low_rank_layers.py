"""Linear layers of any storage with a low-rank change beside them, differentiated by autograd."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from edge_train.arrays.types import Point
from edge_train.formats.adapter import Target, names_of


class LowRankLinear(nn.Module):
    """Computes W x + scale * B (A x) beside a layer that computes W x, in whatever it is stored.

    A and B are float32 and are rounded to the type of the activations inside of the products, as
    mixed precision does; their gradients arrive in float32.

    Attributes:
      first, second: A (rank, inputs) and B (outputs, rank), set before a pass; None: W x alone.
    """

    def __init__(self, base: nn.Module, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for inputs (..., inputs)."""
        outputs: Tensor = self.base(inputs)
        if self.first is None or self.second is None:
            return outputs
        low = inputs @ self.first.to(inputs.dtype).T
        return torch.add(outputs, low @ self.second.to(inputs.dtype).T, alpha=self.scale)


class LowRankLayers:
    """The layers of a few networks that have a change beside them.

    Args:
      networks: by the first part of the targets' paths; their layers are replaced.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], targets: Iterable[Target], scale: float
    ) -> None:
        self._layers: dict[str, LowRankLinear] = {}
        for target in targets:
            component, _, path = target.path.partition(".")
            parent, _, name = path.rpartition(".")
            holder = networks[component].get_submodule(parent)
            layer = LowRankLinear(holder.get_submodule(name), scale)
            setattr(holder, name, layer)
            self._layers[target.path] = layer

    def names(self, component: str) -> list[str]:
        """Return the blocks of one network."""
        paths = [path for path in self._layers if path.partition(".")[0] == component]
        return [name for path in paths for name in names_of(path)[:2]]

    def take(self, point: Point, device: torch.device, *, trained: bool) -> dict[str, Tensor]:
        """Compute with a point from now on; return its blocks as tensors.

        Args:
          trained: whether gradients of them are wanted.

        Memory: on a CPU none, tensors share memory with the arrays; else a copy on the device.
        """
        tensors: dict[str, Tensor] = {}
        for path, layer in self._layers.items():
            first, second, _ = names_of(path)
            for name in (first, second):
                tensor = torch.from_numpy(point[name]).to(device)
                tensors[name] = tensor.requires_grad_() if trained else tensor
            layer.first, layer.second = tensors[first], tensors[second]
        return tensors
