"""EfficientNet-Lite0 with ImageNet weights: features of pictures that no training of ours made.

The weights are a file of 19 MB that other people publish (docs/benchmarks/likeness.md says where);
it is read here and by tests only, never by the product.

Source: EfficientNet (arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, as its
authors describe the Lite models; the names of the weights are those of the published file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from edge_train.errors import InputError

Tensor = Any  # torch's, which is imported late

FEATURES = 1280
_NORM_EPSILON = 1e-3
_STEM, _LAST = 32, 320  # channels
# what torch raises for a file that is none of its own, and what a missing weight raises; no object
# is ever built from the file
_UNREADABLE = (
    *(OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError, EOFError),
    UnpicklingError,
)
# (blocks, kernel, stride of the first block, expansion, channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, _LAST),
)


@dataclass(frozen=True)
class _Block:
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


def _blocks() -> Iterator[_Block]:
    inputs = _STEM
    for count, kernel, stride, expansion, outputs in _STAGES:
        for number in range(count):
            yield _Block(kernel, 1 if number else stride, expansion, inputs, outputs)
            inputs = outputs


@dataclass(frozen=True, eq=False)
class EfficientNetLite0:
    """(n, 3, side, side) in [-1, 1] to the average (n, 1280) of its last layer."""

    weights: Mapping[str, Tensor]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the features."""
        hidden = self._conv(pixels, "_conv_stem", 2)
        hidden = self._normed(hidden, "_bn0").clamp(0, 6)
        for number, block in enumerate(_blocks()):
            hidden = self._block(hidden, f"_blocks.{number}.", block)
        hidden = self._conv(hidden, "_conv_head", 1)
        return self._normed(hidden, "_bn1").clamp(0, 6).mean((2, 3))

    def _block(self, inputs: Tensor, name: str, block: _Block) -> Tensor:
        hidden = inputs
        if block.expansion > 1:
            hidden = self._conv(hidden, f"{name}_expand_conv", 1)
            hidden = self._normed(hidden, f"{name}_bn0").clamp(0, 6)
        hidden = self._conv(hidden, f"{name}_depthwise_conv", block.stride, hidden.shape[1])
        hidden = self._normed(hidden, f"{name}_bn1").clamp(0, 6)
        hidden = self._normed(self._conv(hidden, f"{name}_project_conv", 1), f"{name}_bn2")
        same = block.stride == 1 and block.inputs == block.outputs
        return hidden + inputs if same else hidden

    def _conv(self, hidden: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        """Convolve; what is missing at the edges is split, the larger half right and below."""
        from torch.nn import functional

        weight = self.weights[f"{name}.weight"]
        kernel, side = weight.shape[2], hidden.shape[2]
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        edges = (missing // 2, missing - missing // 2) * 2
        return functional.conv2d(functional.pad(hidden, edges), weight, None, stride, 0, 1, groups)

    def _normed(self, hidden: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        mean, variance, scale, shift = (
            self.weights[f"{name}.{of}"] for of in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(hidden, mean, variance, scale, shift, eps=_NORM_EPSILON)


def read(path: Path) -> EfficientNetLite0:
    """Read the published file.

    Raises:
      InputError: it is not that of EfficientNet-Lite0.
    """
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network = EfficientNetLite0(weights)
        with torch.no_grad():
            found = network(torch.zeros(1, 3, 32, 32)).shape[1]
    except _UNREADABLE as error:
        raise InputError(
            f"{path} is not EfficientNet-Lite0 ({type(error).__name__}); download it again."
        ) from error
    if found != FEATURES:
        raise InputError(f"{path} has {found} features, EfficientNet-Lite0 has {FEATURES}.")
    return network
