"""Linear layers of any storage with a low-rank change beside them, differentiated by autograd."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from edge_train.arrays.types import Array, Point
from edge_train.formats.adapter import Target, names_of

_ROUNDS = 4  # of power iteration; one is enough where a layer has one strong direction


class LowRankLinear(nn.Module):
    """Computes W x + scale * B (A x) beside a layer that computes W x, in whatever it is stored.

    A and B are float32 and are rounded to the type of the activations inside of the products, as
    mixed precision does; their gradients arrive in float32.

    Attributes:
      first, second: A (rank, inputs) and B (outputs, rank), set before a pass; None: W x alone.
    """

    def __init__(self, base: nn.Module, scale: float, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
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
            layer = LowRankLinear(holder.get_submodule(name), scale, target.inputs)
            setattr(holder, name, layer)
            self._layers[target.path] = layer

    def names(self, component: str) -> list[str]:
        """Return the blocks of one network."""
        paths = [path for path in self._layers if path.partition(".")[0] == component]
        return [name for path in paths for name in names_of(path)[:2]]

    def input_spans(self, call: Callable[[], object], rank: int) -> dict[str, Array]:
        """Return the directions in which the inputs of each layer vary most, by its first block.

        Power iteration: every call multiplies orthonormal directions by the second moments of the
        inputs, which are never formed; (rank, inputs) float32 with orthonormal rows.

        Args:
          call: runs the networks on the same inputs each time.

        Source: AGZO (arXiv:2601.17261), which perturbs a layer in the span of its inputs. We differ
        in keeping the directions: they are the first matrix of a low-rank change.
        """
        spans = {
            path: torch.linalg.qr(_started(layer.inputs, rank))[0]
            for path, layer in self._layers.items()
        }
        for _ in range(_ROUNDS):
            spans = {
                path: torch.linalg.qr(total)[0] for path, total in self._moved(call, spans).items()
            }
        return {names_of(path)[0]: span.T.contiguous().numpy() for path, span in spans.items()}

    def _moved(self, call: Callable[[], object], spans: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the second moments of each layer's inputs in a call, times its directions."""
        sums = {path: torch.zeros_like(span) for path, span in spans.items()}

        def add(path: str, inputs: Tensor) -> None:
            rows = inputs.detach().flatten(0, -2).float().cpu()
            sums[path] += rows.T @ (rows @ spans[path])

        hooks = [
            layer.register_forward_pre_hook(lambda _, given, path=path: add(path, given[0]))
            for path, layer in self._layers.items()
        ]
        call()
        for hook in hooks:
            hook.remove()
        return sums

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


def _started(inputs: int, rank: int) -> Tensor:
    """Return directions (inputs, rank) to iterate from: none is zero in any place."""
    rows = torch.arange(1, inputs + 1, dtype=torch.float32)[:, None]
    return torch.cos(rows * torch.arange(1, rank + 1, dtype=torch.float32))
