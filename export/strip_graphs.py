"""Graphs of a VAE in horizontal strips, node by node, in the order in which an engine runs them.

The same computation as `vae_strips`, with the weights of the VAE's other graphs. It is not traced:
the exporter's rules look at every pair of nodes, minutes for graphs of this size, and promise
nothing about the order of the nodes, which here decides what is alive at the same time.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edge_train.export.diffusion_graphs import IR_VERSION, OPSET
from edge_train.models import ModelFolder
from edge_train.vae_strips import STRIP_BYTES

_FUSED = "com.microsoft"


def strip_graphs(
    model: ModelFolder, resolution: int, strip_bytes: int = STRIP_BYTES
) -> tuple[ir.Model, ir.Model]:
    """Return the graphs of `vae_encoder_strips.onnx` and `vae_decoder_strips.onnx`.

    Their nodes have to run in their order: any other holds more.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(dict(model.configs["vae"]))
    side = resolution // model.latent_scale
    encoder = _Builder(vae, "pixels", (3, resolution, resolution), strip_bytes)
    decoder = _Builder(vae, "latents", (model.latent_channels, side, side), strip_bytes)
    return encoder.encoder(), decoder.decoder()


class _Strip:
    """A value of the graph and how many rows of the picture it has."""

    def __init__(self, value: ir.Value, rows: int) -> None:
        self.value, self.rows = value, rows


class _Map:
    """A feature map: its strips from the top down, and what they have in common."""

    def __init__(self, strips: Sequence[_Strip], channels: int, width: int) -> None:
        self.strips, self.channels, self.width = strips, channels, width

    @property
    def bytes(self) -> int:
        """The size of one sample."""
        return 4 * self.channels * self.width * sum(strip.rows for strip in self.strips)


class _Builder:
    """One half of the VAE.

    Args:
      vae: diffusers' AutoencoderKL; only its shapes are read.
      name: of the input, whose shape is (any, channels, height, width).
    """

    def __init__(self, vae: Any, name: str, shape: tuple[int, int, int], strip_bytes: int) -> None:
        self._vae, self._strip_bytes = vae, strip_bytes
        self._names = {id(value): f"vae.{path}" for path, value in vae.named_parameters()}
        channels, rows, width = shape
        given = ir.Value(
            name=name, shape=ir.Shape(("batch", *shape)), type=ir.TensorType(ir.DataType.FLOAT)
        )
        self._graph = ir.Graph(
            [given], [], nodes=[], opset_imports={"": OPSET, _FUSED: 1}, name=name
        )
        self._input = _Map([_Strip(given, rows)], channels, width)

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
        moments = hidden.strips[0].value
        mean, log_variance = self._several("Split", [moments], 2, axis=1, num_outputs=2)
        limits = [self._constant(np.float32(limit)) for limit in (-30.0, 20.0)]
        clipped = self._op("Clip", [log_variance, *limits])
        half = self._op("Mul", [clipped, self._constant(np.float32(0.5))])
        side = hidden.strips[0].rows
        shape = (hidden.channels // 2, side, hidden.width)
        return self._model({"mean": mean, "deviation": self._op("Exp", [half])}, shape)

    def decoder(self) -> ir.Model:
        """Return latents -> pixels."""
        vae, decoder, hidden = self._vae, self._vae.decoder, self._input
        upsamplers = [layer for block in decoder.up_blocks for layer in block.upsamplers or ()]
        widths = [layer.conv.out_channels * 4**level for level, layer in enumerate(upsamplers, 1)]
        largest = hidden.bytes // hidden.channels * max(widths, default=0)
        if vae.post_quant_conv is not None:
            hidden = self._convolution(vae.post_quant_conv, hidden)
        hidden = self._middle(decoder.mid_block, self._convolution(decoder.conv_in, hidden))
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                hidden = self._resnet(resnet, hidden)
            for layer in block.upsamplers or ():
                if len(hidden.strips) == 1 and 4 * hidden.bytes > 2 * self._strip_bytes:
                    hidden = self._split(hidden, largest, 1)
                hidden = self._convolution(layer.conv, hidden, doubled=True)
        hidden = self._convolution(decoder.conv_out, hidden, decoder.conv_norm_out)
        hidden = self._joined(hidden)
        shape = (hidden.channels, hidden.strips[0].rows, hidden.width)
        return self._model({"pixels": hidden.strips[0].value}, shape)

    def _model(self, outputs: dict[str, ir.Value], shape: tuple[int, int, int]) -> ir.Model:
        for name, value in outputs.items():
            value.name, value.shape = name, ir.Shape(("batch", *shape))
            value.type = ir.TensorType(ir.DataType.FLOAT)
            self._graph.outputs.append(value)
        return ir.Model(self._graph, ir_version=IR_VERSION)

    def _split(self, whole: _Map, largest: int, unit: int) -> _Map:
        """Return strips of whole units of rows, so that `largest` bytes would lie in pieces."""
        (strip,) = whole.strips
        each = max(1, strip.rows * self._strip_bytes // (largest * unit)) * unit
        if each >= strip.rows:
            return whole
        cuts = [*range(0, strip.rows, each), strip.rows]
        strips = [
            _Strip(self._rows(strip, start, stop), stop - start) for start, stop in pairwise(cuts)
        ]
        return _Map(strips, whole.channels, whole.width)

    def _joined(self, parts: _Map) -> _Map:
        if len(parts.strips) == 1:
            return parts
        whole = self._op("Concat", [strip.value for strip in parts.strips], axis=2)
        rows = sum(strip.rows for strip in parts.strips)
        return _Map([_Strip(whole, rows)], parts.channels, parts.width)

    def _middle(self, block: Any, hidden: _Map) -> _Map:
        hidden = self._resnet(block.resnets[0], hidden)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            if attention is not None:
                hidden = self._attention(attention, hidden)
            hidden = self._resnet(resnet, hidden)
        return hidden

    def _attention(self, layer: Any, hidden: _Map) -> _Map:
        (strip,) = hidden.strips
        scale, shift = self._affine(layer.group_norm, hidden)
        normal = self._op("Add", [self._op("Mul", [strip.value, scale]), shift])
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
        shape = self._constant(np.array([0, hidden.channels, strip.rows, hidden.width]))
        output = self._op("Reshape", [turned, shape])
        if layer.residual_connection:
            output = self._op("Add", [output, strip.value])
        output = self._divided(output, layer.rescale_output_factor)
        return _Map([_Strip(output, strip.rows)], hidden.channels, hidden.width)

    def _linear(self, layer: nn.Linear, value: ir.Value) -> ir.Value:
        weight = self._op("Transpose", [self._weight(layer.weight)], perm=[1, 0])
        product = self._op("MatMul", [value, weight])
        return self._op("Add", [product, self._weight(layer.bias)])

    def _resnet(self, block: Any, given: _Map) -> _Map:
        """Return a residual block; beside its input's strips, those of its output's size grow."""
        affine = self._affine(block.norm1, given)
        hidden, residual = [], []
        for index, strip in enumerate(given.strips):
            hidden.append(self._convolved(block.conv1, given, index, affine))
            value = strip.value
            if block.conv_shortcut is not None:
                value = self._convolved(block.conv_shortcut, given, index).value
            residual.append(value)
        middle = _Map(hidden, block.conv1.out_channels, given.width)
        affine, output = self._affine(block.norm2, middle), []
        for index, value in enumerate(residual):
            change = self._convolved(block.conv2, middle, index, affine)
            total = self._op("Add", [value, change.value])
            output.append(_Strip(self._divided(total, block.output_scale_factor), change.rows))
        return _Map(output, block.conv2.out_channels, given.width)

    def _convolution(
        self, layer: nn.Conv2d, given: _Map, norm: nn.GroupNorm | None = None, doubled: bool = False
    ) -> _Map:
        affine = self._affine(norm, given) if norm is not None else None
        strips = [
            self._convolved(layer, given, index, affine, doubled)
            for index in range(len(given.strips))
        ]
        width = given.width * (2 if doubled else 1) // layer.stride[0]
        return _Map(strips, layer.out_channels, width)

    def _convolved(
        self,
        layer: nn.Conv2d,
        given: _Map,
        index: int,
        affine: tuple[ir.Value, ir.Value] | None = None,
        doubled: bool = False,
    ) -> _Strip:
        """Return one strip of a convolution.

        Args:
          affine: of the group norm before it, which a SiLU follows.
          doubled: each row and column stands twice.
        """
        strips, stride = given.strips, layer.stride[0]
        first, last = index == 0, index == len(strips) - 1
        halo = layer.kernel_size[0] // 2
        above = halo if stride == 1 else 0  # with stride 2 it is padded below and right only
        window, rows = strips[index].value, strips[index].rows
        parts = [window]
        if above and not first:
            upper = strips[index - 1]
            parts.insert(0, self._rows(upper, upper.rows - 1, upper.rows))
        if halo and not last:
            parts.append(self._rows(strips[index + 1], 0, 1))
        if len(parts) > 1:
            window = self._op("Concat", parts, axis=2)
        if affine is not None:
            scale, shift = affine
            window = self._op("Add", [self._op("Mul", [window, scale]), shift])
            window = self._op("Mul", [window, self._op("Sigmoid", [window])])
        if doubled:
            scales = self._constant(np.array([1, 1, 2, 2], np.float32))
            window = self._op(
                "Resize",
                [window, None, scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            rows *= 2
            held = rows + 2 * (not first) + 2 * (not last)
            start, stop = int(not first), held - int(not last)
            if (start, stop) != (0, held):
                window = self._rows(_Strip(window, held), start, stop)
        inputs = [window, self._weight(layer.weight)]
        if layer.bias is not None:
            inputs.append(self._weight(layer.bias))
        pads = [above * first, above, halo * last, halo]
        value = self._op(
            "Conv",
            inputs,
            pads=pads,
            strides=list(layer.stride),
            kernel_shape=list(layer.kernel_size),
        )
        return _Strip(value, rows // stride)

    def _affine(self, norm: nn.GroupNorm, given: _Map) -> tuple[ir.Value, ir.Value]:
        """Return the factor and the summand (B, C, 1, 1) that a group norm over all strips is."""
        grouped = self._constant(np.array([0, norm.num_groups, -1]))
        rows = sum(strip.rows for strip in given.strips)
        count = self._constant(np.float32(given.channels // norm.num_groups * rows * given.width))

        def mean(summed: list[ir.Value]) -> ir.Value:
            total = summed[0]
            for one in summed[1:]:
                total = self._op("Add", [total, one])
            return self._op("Div", [total, count])

        last = self._constant(np.array([2]))
        sums = []
        for strip in given.strips:
            flat = self._op("Reshape", [strip.value, grouped])
            sums.append(self._op("ReduceSum", [flat, last], keepdims=1))
        average, squares = mean(sums), []
        for strip in given.strips:
            flat = self._op("Reshape", [strip.value, grouped])
            centered = self._op("Sub", [flat, average])
            squares.append(self._op("ReduceSumSquare", [centered, last], keepdims=1))
        variance = self._op("Add", [mean(squares), self._constant(np.float32(norm.eps))])
        inverse = self._op("Reciprocal", [self._op("Sqrt", [variance])])
        parameters = self._constant(np.array([1, norm.num_groups, -1]))
        weight = self._op("Reshape", [self._weight(norm.weight), parameters])
        bias = self._op("Reshape", [self._weight(norm.bias), parameters])
        scale = self._op("Mul", [weight, inverse])
        shift = self._op("Sub", [bias, self._op("Mul", [average, scale])])
        whole = self._constant(np.array([0, given.channels, 1, 1]))
        return self._op("Reshape", [scale, whole]), self._op("Reshape", [shift, whole])

    def _divided(self, value: ir.Value, divisor: float) -> ir.Value:
        if divisor == 1:
            return value
        return self._op("Div", [value, self._constant(np.float32(divisor))])

    def _rows(self, strip: _Strip, start: int, stop: int) -> ir.Value:
        numbers = [self._constant(np.array([number])) for number in (start, stop, 2)]
        return self._op("Slice", [strip.value, *numbers])

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
