"""ConvNeXt and ConvNeXt V2 by timm's names.

Source: Liu et al. (arXiv:2201.03545); Woo et al. (arXiv:2301.00808), whose response norm stands in
the middle of a block.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.nn import functional

from edge_train.runtimes.torch.timm_networks.step import (
    Step,
    Weights,
    conv,
    layer_norm,
    linear,
    numbered,
)

_EPSILON = 1e-6


def steps(names: Iterable[str]) -> Sequence[Step]:
    """Return the steps from pixels (n, 3, side, side) to features (n, width)."""
    found, names = [Step("", _stem)], list(names)
    for stage in numbered(names, "stages."):
        for number in numbered(names, f"stages.{stage}.blocks."):
            name = f"stages.{stage}.blocks.{number}"
            if number == 0 and f"stages.{stage}.downsample.1.weight" in names:
                found.append(Step(f"stages.{stage}.downsample", _downsample))
            found.append(Step(name, _block, is_block=True))
    return (*found, Step("head", _pooled))


def _normed(own: Weights, inputs: Tensor) -> Tensor:
    """Return (n, channels, side, side) normalised over the channels."""
    return layer_norm(own, inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _patches(own: Weights, inputs: Tensor) -> Tensor:
    weight = own["weight"]
    return functional.conv2d(inputs, weight, own.optional("bias"), weight.shape[2])


def _stem(own: Weights, pixels: Tensor) -> Tensor:
    return _normed(own.below("stem.1"), _patches(own.below("stem.0"), pixels))


def _downsample(own: Weights, inputs: Tensor) -> Tensor:
    return _patches(own.below("1"), _normed(own.below("0"), inputs))


def _block(own: Weights, inputs: Tensor) -> Tensor:
    hidden = conv(own.below("conv_dw"), inputs).permute(0, 2, 3, 1)
    hidden = layer_norm(own.below("norm"), hidden)
    hidden = functional.gelu(linear(own.below("mlp.fc1"), hidden))
    if "mlp.grn.weight" in own:
        norms = hidden.norm(dim=(1, 2), keepdim=True)
        shares = norms / (norms.mean(-1, keepdim=True) + _EPSILON)
        hidden = hidden + own["mlp.grn.weight"] * (hidden * shares) + own["mlp.grn.bias"]
    hidden = linear(own.below("mlp.fc2"), hidden)
    scale = own.optional("gamma")
    hidden = hidden if scale is None else hidden * scale
    return inputs + hidden.permute(0, 3, 1, 2)


def _pooled(own: Weights, inputs: Tensor) -> Tensor:
    return layer_norm(own.below("norm"), inputs.mean((2, 3)))
