"""A step of a network, and how steps read weights and compute layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional


class Weights:
    """The tensors of a network below a name.

    Args:
      tensors: by their whole names.
      seen: gets every name that is read.
    """

    def __init__(self, tensors: Mapping[str, Tensor], seen: set[str], below: str = "") -> None:
        self._tensors, self._seen, self._below = tensors, seen, below

    def __getitem__(self, name: str) -> Tensor:
        whole = self._below + name
        self._seen.add(whole)
        return self._tensors[whole]

    def __contains__(self, name: str) -> bool:
        return self._below + name in self._tensors

    def below(self, name: str) -> "Weights":
        """Return those whose names begin with this one and a dot."""
        return Weights(self._tensors, self._seen, f"{self._below}{name}.")

    def optional(self, name: str) -> Tensor | None:
        """Return a tensor, or None where there is none."""
        whole = self._below + name
        return self[name] if whole in self._tensors else None


@dataclass(frozen=True)
class Step:
    """A part of a network.

    Attributes:
      name: what the names of its weights begin with.
      run: its output by its weights and its input.
      is_block: whether it is one of the blocks that people count.
    """

    name: str
    run: Callable[[Weights, Tensor], Tensor]
    is_block: bool = False


def numbered(names: Iterable[str], below: str) -> Iterator[int]:
    """Yield 0, 1, ... while there are weights below that name and number."""
    there = {name.removeprefix(below).partition(".")[0] for name in names if name.startswith(below)}
    for number in count():
        if str(number) not in there:
            return
        yield number


def conv(own: Weights, inputs: Tensor, stride: int = 1, same: bool = False) -> Tensor:
    """Return a convolution, padded so that a stride of one keeps the size.

    Groups follow from the shapes of inputs and weights.

    Args:
      same: padded as TensorFlow does: by what is missing, the larger half right and below; else
        alike on all sides.
    """
    weight = own["weight"]
    kernel = weight.shape[2]
    groups = inputs.shape[1] // weight.shape[1]
    if same and stride > 1:
        side = inputs.shape[2]
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        inputs = functional.pad(inputs, (missing // 2, missing - missing // 2) * 2)
        padding = 0
    else:
        padding = (kernel - 1) // 2
    return functional.conv2d(inputs, weight, own.optional("bias"), stride, padding, 1, groups)


def batch_norm(own: Weights, inputs: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Return inputs normalised by the statistics of the file, scaled and shifted."""
    return functional.batch_norm(
        inputs,
        own["running_mean"],
        own["running_var"],
        own["weight"],
        own["bias"],
        eps=epsilon,
    )


def layer_norm(own: Weights, inputs: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return inputs whose last sides are normalised, scaled and shifted."""
    weight = own["weight"]
    return functional.layer_norm(inputs, weight.shape, weight, own["bias"], epsilon)


def linear(own: Weights, inputs: Tensor) -> Tensor:
    """Return W x + b; a convolution of one pixel is one, too."""
    return functional.linear(inputs, own["weight"].flatten(1), own.optional("bias"))


def mean_of_pixels(_: Weights, inputs: Tensor) -> Tensor:
    """Return (n, channels) of (n, channels, side, side)."""
    return torch.mean(inputs, (2, 3))
