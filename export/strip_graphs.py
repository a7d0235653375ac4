"""Graphs of a VAE in horizontal strips, node by node, in the order in which an engine runs them.

The same computation as `vae_strips`, with the weights of the VAE's other graphs. It is not traced:
the exporter's rules look at every pair of nodes, minutes for graphs of this size, and promise
nothing about the order of the nodes, which here decides what is alive at the same time.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edge_train.export.diffusion_graphs import IR_VERSION, OPSET
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.strips import KEPT_BYTES, STRIP_BYTES, Recent

_FUSED = "com.microsoft"


def strip_graphs(
    model: ModelFolder,
    resolution: int,
    strip_bytes: int = STRIP_BYTES,
    kept_bytes: int = KEPT_BYTES,
) -> tuple[ir.Model, ir.Model]:
    """Return the graphs of `vae_encoder_strips.onnx` and `vae_decoder_strips.onnx`.

    Their nodes have to run in their order: any other holds more.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(dict(model.configs["vae"]))
    side = resolution // model.latent_scale
    sizes = (strip_bytes, kept_bytes)
    encoder = _Builder(vae, "pixels", (3, resolution, resolution), *sizes)
    decoder = _Builder(vae, "latents", (model.latent_channels, side, side), *sizes)
    return encoder.encoder(), decoder.decoder()


class _Map:
    """A feature map in strips, from the top down.

    Args:
      read: returns a strip; where strips are not kept, it adds the nodes that compute one.
      rows: of every strip.
    """

    def __init__(
        self, read: Callable[[int], ir.Value], rows: Sequence[int], channels: int, width: int
    ) -> None:
        self.read, self.rows, self.channels, self.width = read, list(rows), channels, width

    @property
    def bytes(self) -> int:
        """The size of one sample."""
        return 4 * self.channels * self.width * sum(self.rows)


def _whole(value: ir.Value, rows: int, channels: int, width: int) -> _Map:
    """Return a map in one strip."""
    return _Map([value].__getitem__, [rows], channels, width)


class _Builder:
    """One half of the VAE.

    Args:
      vae: diffusers' AutoencoderKL; only its shapes are read.
      name: of the input, whose shape is (any, channels, height, width).
    """

    def __init__(
        self,
        vae: Any,
        name: str,
        shape: tuple[int, int, int],
        strip_bytes: int,
        kept_bytes: int,
    ) -> None:
        self._vae, self._strip_bytes, self._kept_bytes = vae, strip_bytes, kept_bytes
        self._names = {id(value): f"vae.{path}" for path, value in vae.named_parameters()}
        channels, rows, width = shape
        given = ir.Value(
            name=name, shape=ir.Shape(("batch", *shape)), type=ir.TensorType(ir.DataType.FLOAT)
        )
        self._graph = ir.Graph(
            [given], [], nodes=[], opset_imports={"": OPSET, _FUSED: 1}, name=name
        )
        self._input = _whole(given, rows, channels, width)

    def encoder(self) -> ir.Model:
        """Return pixels -> mean, deviation."""
        vae, encoder = self._vae, self._vae.encoder
        unit = 2 ** (len(encoder.down_blocks) - 1)
        pixels = self._input
        largest = pixels.bytes // pixels.channels * encoder.conv_in.out_channels
        hidden = self._convolution(encoder.conv_in, self._split(pixels, largest, unit))
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                hidden = self._resnet(resnet, hidden)
            for layer in block.downsamplers or ():
                hidden = self._convolution(layer.conv, hidden)
            if hidden.bytes <= self._strip_bytes:
                hidden = self._joined(hidden)
        hidden = self._middle(encoder.mid_block, self._joined(hidden))
        hidden = self._convolution(encoder.conv_out, hidden, encoder.conv_norm_out)
        if vae.quant_conv is not None:
            hidden = self._convolution(vae.quant_conv, hidden)
        moments = hidden.read(0)
        mean, log_variance = self._several("Split", [moments], 2, axis=1, num_outputs=2)
        limits = [self._constant(np.float32(limit)) for limit in (-30.0, 20.0)]
        clipped = self._op("Clip", [log_variance, *limits])
        half = self._op("Mul", [clipped, self._constant(np.float32(0.5))])
        shape = (hidden.channels // 2, hidden.rows[0], hidden.width)
        return self._model({"mean": mean, "deviation": self._op("Exp", [half])}, shape)

    def decoder(self) -> ir.Model:
        """Return latents -> pixels."""
        vae, decoder, hidden = self._vae, self._vae.decoder, self._input
        if vae.post_quant_conv is not None:
            hidden = self._convolution(vae.post_quant_conv, hidden)
        hidden = self._middle(decoder.mid_block, self._convolution(decoder.conv_in, hidden))
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                hidden = self._resnet(resnet, hidden)
            for layer in block.upsamplers or ():
                doubled = 4 * hidden.bytes // hidden.channels * layer.conv.out_channels
                hidden = self._split(hidden, doubled, 1)
                hidden = self._convolution(layer.conv, hidden, doubled=True)
        hidden = self._convolution(decoder.conv_out, hidden, decoder.conv_norm_out)
        hidden = self._joined(hidden)
        shape = (hidden.channels, hidden.rows[0], hidden.width)
        return self._model({"pixels": hidden.read(0)}, shape)

    def _model(self, outputs: dict[str, ir.Value], shape: tuple[int, int, int]) -> ir.Model:
        for name, value in outputs.items():
            value.name, value.shape = name, ir.Shape(("batch", *shape))
            value.type = ir.TensorType(ir.DataType.FLOAT)
            self._graph.outputs.append(value)
        return ir.Model(self._graph, ir_version=IR_VERSION)

    def _split(self, given: _Map, largest: int, unit: int) -> _Map:
        """Return strips of whole units of rows, so that `largest` bytes would lie in pieces."""
        each = max(1, sum(given.rows) * self._strip_bytes // (largest * unit)) * unit
        strips, heights = [], []
        for index, rows in enumerate(given.rows):
            for start, stop in pairwise([*range(0, rows, each), rows]):
                whole = stop - start == rows
                strip = given.read(index)
                strips.append(strip if whole else self._rows(strip, start, stop))
                heights.append(stop - start)
        return _Map(strips.__getitem__, heights, given.channels, given.width)

    def _joined(self, parts: _Map) -> _Map:
        if len(parts.rows) == 1:
            return parts
        strips = [parts.read(index) for index in range(len(parts.rows))]
        value = self._op("Concat", strips, axis=2)
        return _whole(value, sum(parts.rows), parts.channels, parts.width)

    def _middle(self, block: Any, hidden: _Map) -> _Map:
        hidden = self._resnet(block.resnets[0], hidden)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            if attention is not None:
                hidden = self._attention(attention, hidden)
            hidden = self._resnet(resnet, hidden)
        return hidden

    def _attention(self, layer: Any, hidden: _Map) -> _Map:
        (rows,), given = hidden.rows, hidden.read(0)
        scale, shift = self._affine(layer.group_norm, hidden)
        normal = self._op("Add", [self._op("Mul", [given, scale]), shift])
        flat = self._op("Reshape", [normal, self._constant(np.array([0, 0, -1]))])
        tokens = self._op("Transpose", [flat], perm=[0, 2, 1])
        three = [self._linear(part, tokens) for part in (layer.to_q, layer.to_k, layer.to_v)]
        mixed = self._op(
            "MultiHeadAttention",
            three,
            domain=_FUSED,
            num_heads=layer.heads,
            scale=float(layer.scale),
        )
        turned = self._op("Transpose", [self._linear(layer.to_out[0], mixed)], perm=[0, 2, 1])
        shape = self._constant(np.array([0, hidden.channels, rows, hidden.width]))
        output = self._op("Reshape", [turned, shape])
        if layer.residual_connection:
            output = self._op("Add", [output, given])
        output = self._divided(output, layer.rescale_output_factor)
        return _whole(output, rows, hidden.channels, hidden.width)

    def _linear(self, layer: nn.Linear, value: ir.Value) -> ir.Value:
        weight = self._op("Transpose", [self._weight(layer.weight)], perm=[1, 0])
        product = self._op("MatMul", [value, weight])
        return self._op("Add", [product, self._weight(layer.bias)])

    def _resnet(self, block: Any, given: _Map) -> _Map:
        """Return a residual block; beside its input's strips, those of its output's size grow.

        Where that is too much to keep twice, what its first convolution gives is computed twice.
        """
        rows, width, channels = given.rows, given.width, block.conv1.out_channels
        affine = self._affine(block.norm1, given)

        def hidden_strip(index: int) -> ir.Value:
            return self._convolved(block.conv1, given, index, affine)

        def residual_strip(index: int) -> ir.Value:
            if block.conv_shortcut is None:
                return given.read(index)
            return self._convolved(block.conv_shortcut, given, index)

        hidden = _Map(Recent(hidden_strip), rows, channels, width)
        residual = _Map(residual_strip, rows, channels, width)
        if 2 * hidden.bytes <= self._kept_bytes:
            pairs = [(hidden.read(index), residual.read(index)) for index in range(len(rows))]
            firsts, seconds = zip(*pairs, strict=True)
            hidden.read, residual.read = firsts.__getitem__, seconds.__getitem__
        affine_after, output = self._affine(block.norm2, hidden), []
        for index in range(len(rows)):
            change = self._convolved(block.conv2, hidden, index, affine_after)
            total = self._op("Add", [residual.read(index), change])
            output.append(self._divided(total, block.output_scale_factor))
        return _Map(output.__getitem__, rows, block.conv2.out_channels, width)

    def _convolution(
        self, layer: nn.Conv2d, given: _Map, norm: nn.GroupNorm | None = None, doubled: bool = False
    ) -> _Map:
        """Return a convolution; one too large to keep is computed whenever it is read."""
        affine = self._affine(norm, given) if norm is not None else None
        times, stride = 2 if doubled else 1, layer.stride[0]

        def strip(index: int) -> ir.Value:
            return self._convolved(layer, given, index, affine, doubled)

        rows = [own * times // stride for own in given.rows]
        output = _Map(Recent(strip), rows, layer.out_channels, given.width * times // stride)
        if output.bytes <= self._kept_bytes:
            output.read = [strip(index) for index in range(len(rows))].__getitem__
        return output

    def _convolved(
        self,
        layer: nn.Conv2d,
        given: _Map,
        index: int,
        affine: tuple[ir.Value, ir.Value] | None = None,
        doubled: bool = False,
    ) -> ir.Value:
        """Return one strip of a convolution.

        Args:
          affine: of the group norm before it, which a SiLU follows.
          doubled: each row and column stands twice.
        """
        rows, stride = given.rows, layer.stride[0]
        first, last = index == 0, index == len(rows) - 1
        halo = layer.kernel_size[0] // 2
        above = halo if stride == 1 else 0  # with stride 2 it is padded below and right only
        parts = [given.read(index)]
        if above and not first:
            parts.insert(0, self._rows(given.read(index - 1), rows[index - 1] - 1, rows[index - 1]))
        if halo and not last:
            parts.append(self._rows(given.read(index + 1), 0, 1))
        window = self._op("Concat", parts, axis=2) if len(parts) > 1 else parts[0]
        if affine is not None:
            scale, shift = affine
            window = self._op("Add", [self._op("Mul", [window, scale]), shift])
            window = self._op("QuickGelu", [window], domain=_FUSED, alpha=1.0)  # which is SiLU
        if doubled:
            scales = self._constant(np.array([1, 1, 2, 2], np.float32))
            window = self._op(
                "Resize",
                [window, None, scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            held = 2 * (rows[index] + (not first) + (not last))
            start, stop = int(not first), held - int(not last)
            if (start, stop) != (0, held):
                window = self._rows(window, start, stop)
        inputs = [window, self._weight(layer.weight)]
        if layer.bias is not None:
            inputs.append(self._weight(layer.bias))
        return self._op(
            "Conv",
            inputs,
            pads=[above * first, above, halo * last, halo],
            strides=list(layer.stride),
            kernel_shape=list(layer.kernel_size),
        )

    def _affine(self, norm: nn.GroupNorm, given: _Map) -> tuple[ir.Value, ir.Value]:
        """Return the factor and the summand (B, C, 1, 1) that a group norm over all strips is.

        Every strip is read once: its own mean and squares around it are joined to those of all.
        """
        grouped, last = self._constant(np.array([0, norm.num_groups, -1])), np.array([2])
        means, squares = [], []
        for index in range(len(given.rows)):
            flat = self._op("Reshape", [given.read(index), grouped])
            means.append(self._op("ReduceMean", [flat, self._constant(last)], keepdims=1))
            centered = self._op("Sub", [flat, means[-1]])
            squares.append(self._op("ReduceSumSquare", [centered, self._constant(last)]))
        numbers = np.array(given.rows, np.float32) * (given.channels // norm.num_groups)
        numbers *= np.float32(given.width)  # in each strip, per group
        share = self._constant(numbers / numbers.sum())
        own = self._op("Concat", means, axis=2)  # (B, groups, strips)
        average = self._sum(self._op("Mul", [own, share]))
        apart = self._op("Sub", [own, average])
        between = self._sum(self._op("Mul", [self._op("Mul", [apart, apart]), share]))
        within = self._op(
            "Div",
            [
                self._sum(self._op("Concat", squares, axis=2)),
                self._constant(numbers.sum()),
            ],
        )
        variance = self._op("Add", [within, between])
        stable = self._op("Add", [variance, self._constant(np.float32(norm.eps))])
        inverse = self._op("Reciprocal", [self._op("Sqrt", [stable])])
        parameters = self._constant(np.array([1, norm.num_groups, -1]))
        weight = self._op("Reshape", [self._weight(norm.weight), parameters])
        bias = self._op("Reshape", [self._weight(norm.bias), parameters])
        scale = self._op("Mul", [weight, inverse])
        shift = self._op("Sub", [bias, self._op("Mul", [average, scale])])
        whole = self._constant(np.array([0, given.channels, 1, 1]))
        return self._op("Reshape", [scale, whole]), self._op("Reshape", [shift, whole])

    def _sum(self, value: ir.Value) -> ir.Value:
        """Return (B, groups, 1), the sum over the last axis."""
        return self._op("ReduceSum", [value, self._constant(np.array([2]))], keepdims=1)

    def _divided(self, value: ir.Value, divisor: float) -> ir.Value:
        if divisor == 1:
            return value
        return self._op("Div", [value, self._constant(np.float32(divisor))])

    def _rows(self, strip: ir.Value, start: int, stop: int) -> ir.Value:
        numbers = [self._constant(np.array([number])) for number in (start, stop, 2)]
        return self._op("Slice", [strip, *numbers])

    def _weight(self, parameter: torch.Tensor) -> ir.Value:
        name = self._names[id(parameter)]
        if name not in self._graph.initializers:
            shape, kind = ir.Shape(tuple(parameter.shape)), ir.TensorType(ir.DataType.FLOAT)
            self._graph.initializers[name] = ir.Value(name=name, shape=shape, type=kind)
        return self._graph.initializers[name]

    def _constant(self, array: Any) -> ir.Value:
        array = np.asarray(array)
        name = f"{array.dtype}{array.tolist()}"
        if name not in self._graph.initializers:
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self._graph.register_initializer(value)
        return self._graph.initializers[name]

    def _op(
        self, kind: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any
    ) -> ir.Value:
        return self._several(kind, inputs, 1, domain, **attributes)[0]

    def _several(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        count: int,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        node = ir.node(kind, list(inputs), attributes=attributes, domain=domain, num_outputs=count)
        for place, output in enumerate(node.outputs):
            output.name = f"{kind}_{len(self._graph)}_{place}"
        self._graph.append(node)
        return node.outputs
