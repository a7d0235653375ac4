"""ResNet, Wide ResNet and ResNeXt by timm's names.

Source: He et al. (arXiv:1512.03385) with the stride in the 3 x 3 convolution of a bottleneck, as
torchvision and timm have it; groups (arXiv:1611.05431) follow from the shapes of the weights.
"""

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional

from edge_train.runtimes.torch.timm_networks.step import (
    Step,
    Weights,
    batch_norm,
    conv,
    mean_of_pixels,
    numbered,
)

_STAGES = 4


def steps(names: Iterable[str]) -> Sequence[Step]:
    """Return the steps from pixels (n, 3, side, side) to features (n, width)."""
    found, names = [Step("", _stem)], list(names)
    for stage in range(1, _STAGES + 1):
        for number in numbered(names, f"layer{stage}."):
            stride = 2 if stage > 1 and number == 0 else 1
            run = partial(_block, stride=stride)
            found.append(Step(f"layer{stage}.{number}", run, is_block=True))
    return (*found, Step("", mean_of_pixels))


def _stem(own: Weights, pixels: Tensor) -> Tensor:
    hidden = batch_norm(own.below("bn1"), conv(own.below("conv1"), pixels, 2)).relu()
    return functional.max_pool2d(hidden, 3, 2, 1)


def _block(own: Weights, inputs: Tensor, stride: int) -> Tensor:
    kept = inputs
    if "downsample.0.weight" in own:
        kept = conv(own.below("downsample.0"), inputs, stride)
        kept = batch_norm(own.below("downsample.1"), kept)
    deep = "conv3.weight" in own
    hidden = conv(own.below("conv1"), inputs, 1 if deep else stride)
    hidden = batch_norm(own.below("bn1"), hidden).relu()
    hidden = conv(own.below("conv2"), hidden, stride if deep else 1)
    hidden = batch_norm(own.below("bn2"), hidden)
    if deep:
        hidden = batch_norm(own.below("bn3"), conv(own.below("conv3"), hidden.relu()))
    return (hidden + kept).relu()
