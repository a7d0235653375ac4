"""A VAE in horizontal strips: the same numbers as in one piece, from a fraction of the memory.

The feature maps of a VAE at the size of the picture decide what encoding and decoding hold: 134 and
268 MB each at 512 pixels, several at a time. Here a map is a list of strips, from the top down, and
lets go of every strip that nothing reads any more; a map too large to keep beside another is not
kept at all, its strips are computed whenever they are read. A convolution reads one more row on
each side of its strip; a group norm first takes the mean and the variance over all strips. So
nothing is approximated, unlike in tiles that are blended: results differ from the whole picture's
only as sums of floats in another order do.

Written for torch; `export.strip_graphs` writes the same as a graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_train.formats.strips import KEPT_BYTES, STRIP_BYTES, Recent


def encode(
    vae: Any, pixels: Tensor, strip_bytes: int = STRIP_BYTES, kept_bytes: int = KEPT_BYTES
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (B, C, h, w) of the latents of pixels (B, 3, H, W) in [-1, 1].

    Args:
      vae: diffusers' AutoencoderKL; its decoder is not touched.
    """
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    encoder = vae.encoder
    unit = 2 ** (len(encoder.down_blocks) - 1)
    largest = pixels[:1, :1].numel() * 4 * encoder.conv_in.out_channels
    hidden: _Map = _split(_Kept([pixels]), largest, strip_bytes, unit)
    hidden = _convolution(encoder.conv_in, hidden, kept_bytes)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, kept_bytes)
        for layer in block.downsamplers or ():
            hidden = _convolution(layer.conv, hidden, kept_bytes)
        if hidden.bytes <= strip_bytes:
            hidden = _Kept([_joined(hidden)])
    middle = _Kept([encoder.mid_block(_joined(hidden))])
    moments = _joined(_convolution(encoder.conv_out, middle, kept_bytes, encoder.conv_norm_out))
    if vae.quant_conv is not None:
        moments = vae.quant_conv(moments)
    latents = DiagonalGaussianDistribution(moments)
    return latents.mean, latents.std


def decode(
    vae: Any, latents: Tensor, strip_bytes: int = STRIP_BYTES, kept_bytes: int = KEPT_BYTES
) -> Tensor:
    """Return pixels (B, 3, H, W) of latents (B, C, h, w), as the VAE knows them.

    Args:
      vae: diffusers' AutoencoderKL; its encoder is not touched.
    """
    decoder = vae.decoder
    if vae.post_quant_conv is not None:
        latents = vae.post_quant_conv(latents)
    hidden: _Map = _Kept([decoder.mid_block(decoder.conv_in(latents))])
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, kept_bytes)
        for layer in block.upsamplers or ():
            doubled = 4 * hidden.bytes // hidden.channels * layer.conv.out_channels
            hidden = _split(hidden, doubled, strip_bytes, 1)
            hidden = _convolution(layer.conv, hidden, kept_bytes, doubled=True)
    return _joined(_convolution(decoder.conv_out, hidden, kept_bytes, decoder.conv_norm_out))


class _Kept:
    """A feature map whose strips are kept until they are forgotten."""

    def __init__(self, strips: Sequence[Tensor]) -> None:
        self._strips: list[Tensor | None] = list(strips)
        self.count, self.channels = len(strips), strips[0].shape[1]
        self.bytes: int = sum(strip[:1].numel() * 4 for strip in strips)  # of one sample

    def read(self, index: int) -> Tensor:
        strip = self._strips[index]
        if strip is None:
            raise ValueError(f"strip {index} was forgotten")
        return strip

    def forget(self, before: int) -> None:
        """Let go of the strips before one: they are not read again."""
        for index in range(min(before, self.count)):
            self._strips[index] = None


class _Computed:
    """A feature map whose strips are computed, from another map's, whenever they are read."""

    def __init__(
        self, make: Callable[[int], Tensor], given: "_Map", channels: int, times: float = 1
    ) -> None:
        self._given, self.channels = given, channels
        self.count: int = given.count
        self.bytes: int = int(given.bytes // given.channels * channels * times)
        self.read = Recent(make)

    def forget(self, before: int) -> None:
        self._given.forget(before - 1)


_Map = _Kept | _Computed


def _split(given: _Map, largest: int, strip_bytes: int, unit: int) -> _Kept:
    """Return strips of whole units of rows, so that `largest` bytes would lie in pieces."""
    rows = sum(given.read(index).shape[2] for index in range(given.count))
    each = max(1, rows * strip_bytes // (largest * unit)) * unit
    strips: list[Tensor] = []
    for index in range(given.count):
        parts = torch.split(given.read(index), each, 2)
        strips += [part.clone() for part in parts] if len(parts) > 1 else parts
        given.forget(index + 1)
    return _Kept(strips)


def _joined(hidden: _Map) -> Tensor:
    if hidden.count == 1:
        return hidden.read(0)
    return torch.cat([hidden.read(index) for index in range(hidden.count)], 2)


def _convolution(
    layer: nn.Conv2d,
    given: _Map,
    kept_bytes: int,
    norm: nn.GroupNorm | None = None,
    *,
    doubled: bool = False,
) -> _Map:
    """Return a convolution; one that is too large to keep is computed whenever it is read."""
    affine = _affine(norm, given) if norm is not None else None

    def strip(index: int) -> Tensor:
        return _convolved(layer, given, index, affine, doubled=doubled)

    times = (2 if doubled else 1) / layer.stride[0]
    output = _Computed(strip, given, layer.out_channels, times**2)
    return output if output.bytes > kept_bytes else _kept(output)


def _kept(computed: _Computed) -> _Kept:
    """Return the same map, computed once; nothing else may read what it is computed from."""
    strips = []
    for index in range(computed.count):
        strips.append(computed.read(index))
        computed.forget(index + 1)
    return _Kept(strips)


def _resnet(block: Any, given: _Map, kept_bytes: int) -> _Kept:
    """Return a residual block; the strips of what it is given are forgotten on the way.

    Where that is too much to keep twice, what its first convolution gives is computed twice.
    """
    affine, channels = _affine(block.norm1, given), block.conv1.out_channels

    def hidden_strip(index: int) -> Tensor:
        return _convolved(block.conv1, given, index, affine)

    def residual_strip(index: int) -> Tensor:
        own = given.read(index)
        return own if block.conv_shortcut is None else block.conv_shortcut(own)

    hidden: _Map = _Computed(hidden_strip, given, channels)
    residual: _Map = _Computed(residual_strip, given, channels)
    if 2 * hidden.bytes <= kept_bytes:
        pairs = []
        for index in range(given.count):
            pairs.append((hidden.read(index), residual.read(index)))
            given.forget(index)
        hidden, residual = (_Kept(strips) for strips in zip(*pairs, strict=True))
        del pairs
    affine_after, output = _affine(block.norm2, hidden), []
    for index in range(given.count):
        change = _convolved(block.conv2, hidden, index, affine_after)
        output.append((residual.read(index) + change) / block.output_scale_factor)
        hidden.forget(index)
        residual.forget(index + 1)
    return _Kept(output)


def _convolved(
    layer: nn.Conv2d,
    given: _Map,
    index: int,
    affine: tuple[Tensor, Tensor] | None = None,
    *,
    doubled: bool = False,
) -> Tensor:
    """Return one strip of a 3 x 3 convolution: padded with zeros only where the picture ends.

    Args:
      affine: of the group norm before it, which a SiLU follows.
      doubled: each row and column stands twice.
    """
    first, last, stride = index == 0, index == given.count - 1, layer.stride[0]
    above = stride == 1  # with stride 2 it is padded below and right only, as diffusers does
    parts = [given.read(index)]
    if above and not first:
        parts.insert(0, given.read(index - 1)[:, :, -1:])
    if not last:
        parts.append(given.read(index + 1)[:, :, :1])
    window = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
    if affine is not None:
        scale, shift = affine
        window = F.silu((window * scale).add_(shift), inplace=True)
    if doubled:
        window = F.interpolate(window, scale_factor=2.0, mode="nearest")
        rows = window.shape[2]  # of a neighbor's row doubled, the convolution reads the nearer one
        window = window[:, :, int(not first) : rows - int(not last)]
    window = F.pad(window, (int(above), 1, int(above and first), int(last)))
    return F.conv2d(window, layer.weight, layer.bias, stride=stride)


def _affine(norm: nn.GroupNorm, given: _Map) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand (B, C, 1, 1) that a group norm over all strips is.

    Every strip is read once: its own mean and squares around it are joined to those of all.
    """
    groups, means, squares, numbers = norm.num_groups, [], [], []
    for index in range(given.count):
        strip = given.read(index)
        flat = strip.reshape(len(strip), groups, -1)
        means.append(flat.mean(2, keepdim=True))
        squares.append((flat - means[-1]).square_().sum(2, keepdim=True))
        numbers.append(flat.shape[2])
    share = torch.tensor(numbers, dtype=strip.dtype, device=strip.device) / sum(numbers)
    own = torch.cat(means, 2)  # (B, groups, strips)
    mean = (own * share).sum(2, keepdim=True)
    variance = torch.stack(squares).sum(0) / sum(numbers)
    variance += ((own - mean).square() * share).sum(2, keepdim=True)
    scale = norm.weight.reshape(1, groups, -1) * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.reshape(1, groups, -1) - mean * scale
    shape = (len(strip), given.channels, 1, 1)
    return scale.reshape(shape), shift.reshape(shape)
