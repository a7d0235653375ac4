"""A VAE in horizontal strips: the same numbers as in one piece, from a fraction of the memory.

The feature maps of a VAE at the size of the picture decide what encoding and decoding hold: 268 MB
each at 512 pixels, several at a time. Here a map is a list of strips, from the top down, and a list
lets go of every strip that nothing reads any more. A convolution reads one more row on each side of
its strip; a group norm first takes the mean and the variance over all strips. So nothing is
approximated, unlike in tiles that are blended: results differ from the whole picture's only as sums
of floats in another order do.

Written for torch; `export.strip_graphs` writes the same as a graph.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIP_BYTES = 2**24  # of one strip; larger saves little time, smaller little memory


def encode(vae: Any, pixels: Tensor, strip_bytes: int = STRIP_BYTES) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (B, C, h, w) of the latents of pixels (B, 3, H, W) in [-1, 1].

    Args:
      vae: diffusers' AutoencoderKL; its decoder is not touched.
    """
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    encoder = vae.encoder
    unit = 2 ** (len(encoder.down_blocks) - 1)
    largest = pixels[:1, :1].numel() * 4 * encoder.conv_in.out_channels
    strips = _split(pixels, largest, strip_bytes, unit)
    strips = _convolve(encoder.conv_in, strips)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            strips = _resnet(resnet, strips)
        for layer in block.downsamplers or ():
            strips = _downsample(layer.conv, strips)
        if sum(_bytes(strip) for strip in strips) <= strip_bytes:
            strips = [torch.cat(strips, 2)]
    hidden = encoder.mid_block(torch.cat(strips, 2))
    (moments,) = _normalized_convolution(encoder.conv_norm_out, encoder.conv_out, [hidden])
    if vae.quant_conv is not None:
        moments = vae.quant_conv(moments)
    latents = DiagonalGaussianDistribution(moments)
    return latents.mean, latents.std


def decode(vae: Any, latents: Tensor, strip_bytes: int = STRIP_BYTES) -> Tensor:
    """Return pixels (B, 3, H, W) of latents (B, C, h, w), as the VAE knows them.

    Args:
      vae: diffusers' AutoencoderKL; its encoder is not touched.
    """
    decoder = vae.decoder
    if vae.post_quant_conv is not None:
        latents = vae.post_quant_conv(latents)
    upsamplers = [layer for block in decoder.up_blocks for layer in block.upsamplers or ()]
    widths = [layer.conv.out_channels * 4**level for level, layer in enumerate(upsamplers, 1)]
    largest = latents[:1, :1].numel() * 4 * max(widths, default=0)
    strips = [decoder.mid_block(decoder.conv_in(latents))]
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            strips = _resnet(resnet, strips)
        for layer in block.upsamplers or ():
            if len(strips) == 1 and 4 * _bytes(strips[0]) > 2 * strip_bytes:
                strips = _split(strips.pop(), largest, strip_bytes, 1)
            strips = _upsample(layer.conv, strips)
    return torch.cat(_normalized_convolution(decoder.conv_norm_out, decoder.conv_out, strips), 2)


def _bytes(tensor: Tensor) -> int:
    """Return the size of one sample."""
    return tensor[:1].numel() * 4


def _split(whole: Tensor, largest: int, strip_bytes: int, unit: int) -> list[Tensor]:
    """Return strips of whole units of rows, so that `largest` bytes would lie in pieces."""
    rows = whole.shape[2]
    each = max(1, rows * strip_bytes // (largest * unit)) * unit
    return [whole[:, :, start : start + each] for start in range(0, rows, each)]


def _window(strips: list[Tensor], index: int, above: int = 1, below: int = 1) -> Tensor:
    """Return a strip with the nearest rows of its neighbors, as far as there are any."""
    parts = [strips[index]]
    if index and above:
        parts.insert(0, strips[index - 1][:, :, -above:])
    if index + 1 < len(strips) and below:
        parts.append(strips[index + 1][:, :, :below])
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _convolution(layer: nn.Conv2d, window: Tensor, first: bool, last: bool) -> Tensor:
    """Return a 3 x 3 convolution of a window: padded with zeros only where the picture ends."""
    if first or last:
        window = F.pad(window, (0, 0, int(first), int(last)))
    return F.conv2d(window, layer.weight, layer.bias, padding=(0, 1))


def _convolve(layer: nn.Conv2d, strips: list[Tensor]) -> list[Tensor]:
    last = len(strips) - 1
    return [
        _convolution(layer, _window(strips, index), index == 0, index == last)
        for index in range(last + 1)
    ]


def _normalized_convolution(
    norm: nn.GroupNorm, layer: nn.Conv2d, strips: list[Tensor]
) -> list[Tensor]:
    """Return the convolution of the normalized, SiLU-activated strips; the list keeps its own."""
    scale, shift = _affine(norm, strips)
    last = len(strips) - 1
    return [
        _convolution(
            layer, _activated(_window(strips, index), scale, shift), index == 0, index == last
        )
        for index in range(last + 1)
    ]


def _affine(norm: nn.GroupNorm, strips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand (B, C, 1, 1) that a group norm over all strips is."""
    batch, channels, _, width = strips[0].shape
    groups = norm.num_groups
    rows = sum(strip.shape[2] for strip in strips)
    numbers = channels // groups * rows * width
    flat = [strip.reshape(batch, groups, -1) for strip in strips]
    mean = torch.stack([own.sum(2, keepdim=True) for own in flat]).sum(0) / numbers
    squares = [(own - mean).square_().sum(2, keepdim=True) for own in flat]
    variance = torch.stack(squares).sum(0) / numbers
    scale = norm.weight.reshape(1, groups, -1) * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.reshape(1, groups, -1) - mean * scale
    return scale.reshape(batch, channels, 1, 1), shift.reshape(batch, channels, 1, 1)


def _activated(window: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    hidden = window * scale
    hidden += shift
    return F.silu(hidden, inplace=True)


def _resnet(block: Any, strips: list[Tensor]) -> list[Tensor]:
    """Return the strips of a residual block; `strips` is emptied on the way."""
    last, gone = len(strips) - 1, torch.empty(0)
    scale, shift = _affine(block.norm1, strips)
    hidden, residual = [], []
    for index in range(last + 1):
        window = _activated(_window(strips, index), scale, shift)
        hidden.append(_convolution(block.conv1, window, index == 0, index == last))
        own = strips[index]
        residual.append(own if block.conv_shortcut is None else block.conv_shortcut(own))
        if index:
            strips[index - 1] = gone
    del own, window
    strips.clear()
    scale, shift = _affine(block.norm2, hidden)
    for index in range(last + 1):
        window = _activated(_window(hidden, index), scale, shift)
        change = _convolution(block.conv2, window, index == 0, index == last)
        residual[index] = (residual[index] + change) / block.output_scale_factor
        if index:
            hidden[index - 1] = gone
    return residual


def _upsample(layer: nn.Conv2d, strips: list[Tensor]) -> list[Tensor]:
    """Return strips of twice the rows and columns; `strips` is emptied on the way."""
    last, doubled = len(strips) - 1, []
    for index in range(last + 1):
        window = F.interpolate(_window(strips, index), scale_factor=2.0, mode="nearest")
        rows = window.shape[2]  # of a neighbor's row doubled, the convolution reads the nearer one
        window = window[:, :, int(index > 0) : rows - int(index < last)]
        doubled.append(_convolution(layer, window, index == 0, index == last))
    strips.clear()
    return doubled


def _downsample(layer: nn.Conv2d, strips: list[Tensor]) -> list[Tensor]:
    """Return strips of half the rows and columns; the padding is below and right, as diffusers'."""
    halved, last = [], len(strips) - 1
    for index in range(last + 1):
        window = F.pad(_window(strips, index, above=0), (0, 1, 0, int(index == last)))
        halved.append(F.conv2d(window, layer.weight, layer.bias, stride=2))
    strips.clear()
    return halved
