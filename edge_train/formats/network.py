"""Small networks as data: a chain of layers written as words, checked and cut into blocks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.rng import Key

Shape = tuple[int, ...]  # of one sample, channels last
_FUNCTION = 200  # operations of a product that NumPy does in the time of one tanh


@dataclass(frozen=True)
class Dense:
    """y = W x + b."""

    units: int


@dataclass(frozen=True)
class Convolution:
    """Square kernel over height and width; `padding` pixels of zeros on every side."""

    channels: int
    kernel: int
    padding: int
    stride: int = 1


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer over a sequence of rows; it hands on its state at every row."""

    kind: Literal["rnn", "gru", "lstm"]
    units: int

    @property
    def gates(self) -> int:
        """Pre-activations per unit."""
        return {"rnn": 1, "gru": 3, "lstm": 4}[self.kind]


@dataclass(frozen=True)
class Activation:
    """An elementwise function."""

    kind: Literal["tanh", "relu", "sigmoid"]


@dataclass(frozen=True)
class Normalization:
    """Zero mean and unit variance, then a trained scale and shift per channel.

    `batch` takes the statistics over everything but channels, and needs `calibrate` before it can
    judge single samples; `layer` takes them over each sample (each row of a sequence) alone.
    """

    kind: Literal["batch", "layer"]


@dataclass(frozen=True)
class Pool:
    """The largest or mean value of every `size` x `size` square; what does not fill one is cut."""

    kind: Literal["max", "mean"]
    size: int


@dataclass(frozen=True)
class Reshape:
    """`flat`: all numbers in a line; `rows`: a picture as a sequence of rows; `last`: last row."""

    kind: Literal["flat", "rows", "last"]


Layer = Dense | Convolution | Recurrent | Activation | Normalization | Pool | Reshape
Trainable = Dense | Convolution | Recurrent


@dataclass(frozen=True)
class Block:
    """A trainable layer, reshaped input before it and everything up to the next one after it.

    It is the unit that is run, differentiated and released alone. The last block of a network ends
    in one number per class.
    """

    name: str
    layers: tuple[Layer, ...]
    input_shape: Shape
    output_shape: Shape

    @property
    def divisible(self) -> bool:
        """Whether a part of a batch at a time saves memory and gives the same gradient.

        Pictures and sequences hold far more than their weights; a batch normalization needs all.
        """
        kinds = tuple(type(layer) for layer in self.layers)
        whole = Normalization("batch") in self.layers
        return not whole and (Convolution in kinds or Recurrent in kinds)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest output that its layers allow; targets beyond are missed."""
        low, high = -math.inf, math.inf
        for layer in self.layers:
            match layer:
                case Activation(kind):
                    low, high = (_bounded(kind, end) for end in (low, high))
                case Recurrent():
                    low, high = -1.0, 1.0  # each kind ends in a tanh, or a share of one
                case Dense() | Convolution() | Normalization():
                    low, high = -math.inf, math.inf
                case Pool() | Reshape():
                    pass
        return low, high


def _bounded(kind: Literal["tanh", "relu", "sigmoid"], end: float) -> float:
    """Return the value of an increasing activation at the end of a range, which may be infinite."""
    match kind:
        case "tanh":
            return math.tanh(end)
        case "relu":
            return max(end, 0.0)
        case "sigmoid":
            return 0.5 + 0.5 * math.tanh(0.5 * end)


@dataclass(frozen=True)
class Network:
    """A chain of blocks from a sample of `input_shape` to `classes` numbers."""

    text: str
    blocks: tuple[Block, ...]
    input_shape: Shape
    classes: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order."""
        return tuple(layer for block in self.blocks for layer in block.layers)


PRESETS = {
    "lenet": "conv 6 5, tanh, maxpool 2, conv 16 5 valid, tanh, maxpool 2, dense 120, tanh, "
    "dense 84, tanh",
    "vgg-small": "conv 32 3, batchnorm, relu, conv 32 3, batchnorm, relu, maxpool 2, "
    "conv 64 3, batchnorm, relu, conv 64 3, batchnorm, relu, maxpool 2, "
    "conv 128 3, batchnorm, relu, maxpool 2, dense 128, batchnorm, relu",
}
_SIZED_PRESETS = ("mlp", "rnn", "gru", "lstm")
_NOT_A_CHAIN = {
    "residual": "adds the input of a layer to the output of a later one",
    "skip": "carries values past trainable layers",
    "concat": "joins two branches",
    "shared": "uses the weights of one layer twice",
    "tied": "uses the weights of one layer twice",
    "attention": "mixes several trainable maps in one layer",
}
_MOST_UNITS = 65_536


def parse(text: str, input_shape: Shape, classes: int) -> Network:
    """Return the network that `text` describes, for samples of one shape.

    The text is a list of layers (`conv 32 5, tanh, maxpool 2, dense 500, tanh`), or a preset:
    `lenet`, `vgg-small`, `mlp 500 500`, `rnn 128 128`, `gru 64`, `lstm 64`. A dense layer with one
    output per class is added at the end; pictures become vectors or rows where a layer needs it.

    Raises:
      InputError: an unknown word, a size that does not fit, or a network that is no plain chain.

    >>> [block.output_shape for block in parse("mlp 30 20", (8, 8, 1), 10).blocks]
    [(30,), (20,), (10,)]
    """
    words = text.split()
    if not words:
        raise InputError(f"network is empty; try `mlp 500 500`, {' or '.join(PRESETS)}.")
    if words[0] in PRESETS and len(words) == 1:
        items = PRESETS[words[0]].split(",")
    elif words[0] in _SIZED_PRESETS and "," not in text:
        items = _sized(words[0], words[1:])
    else:
        items = text.split(",")
    layers = [_layer(text, item.split()) for item in items] + [Dense(classes)]
    return Network(text, _blocks(text, layers, input_shape), input_shape, classes)


def _sized(preset: str, words: Sequence[str]) -> list[str]:
    """Return the layers of `mlp 500 500 [relu]` or `gru 64`."""
    kind = "tanh"
    if preset == "mlp" and words and words[-1] in ("tanh", "relu", "sigmoid"):
        kind, words = words[-1], words[:-1]
    if not words:
        raise InputError(f"network {preset!r} needs its sizes, such as `{preset} 128 128`.")
    if preset == "mlp":
        return [item for size in words for item in (f"dense {size}", kind)]
    return [f"{preset} {size}" for size in words]


def _layer(text: str, words: Sequence[str]) -> Layer:
    name, sizes = (words[0], words[1:]) if words else ("", ())
    if name in _NOT_A_CHAIN:
        raise InputError(
            f"network {text!r}: {name!r} {_NOT_A_CHAIN[name]}; layers are trained one at a time, "
            "so it must be a plain chain. Leave it out, or freeze that part and give its features "
            "as `backbone`."
        )
    if name == "dense" and len(sizes) == 1:
        return Dense(_size(text, name, sizes[0]))
    if name == "conv" and len(sizes) in (2, 3) and sizes[2:] in ([], ["valid"]):
        kernel = _size(text, name, sizes[1])
        return Convolution(_size(text, name, sizes[0]), kernel, 0 if sizes[2:] else kernel // 2)
    if name in ("rnn", "gru", "lstm") and len(sizes) == 1:
        return Recurrent(name, _size(text, name, sizes[0]))  # type: ignore[arg-type] # checked
    if name in ("tanh", "relu", "sigmoid") and not sizes:
        return Activation(name)  # type: ignore[arg-type] # checked above
    if name in ("batchnorm", "layernorm") and not sizes:
        return Normalization("batch" if name == "batchnorm" else "layer")
    if name in ("maxpool", "meanpool") and len(sizes) == 1:
        return Pool("max" if name == "maxpool" else "mean", _size(text, name, sizes[0]))
    raise InputError(
        f"network {text!r}: {' '.join(words)!r} is not a layer. Known: dense N, conv CHANNELS "
        "KERNEL [valid], rnn N, gru N, lstm N, tanh, relu, sigmoid, batchnorm, layernorm, "
        f"maxpool N, meanpool N; or a preset: {', '.join((*PRESETS, *_SIZED_PRESETS))}."
    )


def _size(text: str, name: str, word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= _MOST_UNITS:
        raise InputError(
            f"network {text!r}: {name} {word!r} must be a whole number from 1 to {_MOST_UNITS}."
        )
    return int(word)


def _blocks(text: str, layers: Sequence[Layer], shape: Shape) -> tuple[Block, ...]:
    """Cut a chain into blocks and work out every shape."""
    if not isinstance(layers[0], Trainable):
        raise InputError(
            f"network {text!r}: it begins with {_name(layers[0])}, which has nothing to train; "
            "begin with dense, conv, rnn, gru or lstm."
        )
    blocks: list[Block] = []
    parts: list[Layer] = []
    entry = shape
    for layer, following in pairwise([*layers, None]):
        assert layer is not None
        if isinstance(layer, Trainable):
            reshape = _reshape(layer, shape)
            if reshape:
                parts.append(reshape)
                shape = output_shape(text, reshape, shape)
        parts.append(layer)
        shape = output_shape(text, layer, shape)
        if following is None or isinstance(following, Trainable):
            blocks.append(Block(str(len(blocks)), tuple(parts), entry, shape))
            parts, entry = [], shape
    return tuple(blocks)


def _reshape(layer: Trainable, shape: Shape) -> Reshape | None:
    """Return what turns a sample of `shape` into what `layer` reads, if anything must."""
    if isinstance(layer, Dense) and len(shape) == 3:
        return Reshape("flat")
    if isinstance(layer, Dense) and len(shape) == 2:
        return Reshape("last")
    if isinstance(layer, Recurrent) and len(shape) == 3:
        return Reshape("rows")
    return None


def _name(layer: Layer) -> str:
    return type(layer).__name__.lower()


def output_shape(text: str, layer: Layer, shape: Shape) -> Shape:
    """Return the shape of one sample after a layer.

    Raises:
      InputError: the layer cannot read such a sample.
    """
    match layer:
        case Dense(units) if len(shape) == 1:
            return (units,)
        case Convolution(channels, kernel, padding, stride) if len(shape) == 3:
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in shape[:2])
            if min(height, width) >= 1:
                return (height, width, channels)
        case Recurrent(_, units) if len(shape) == 2:
            return (shape[0], units)
        case Pool(_, size) if len(shape) == 3 and min(shape[:2]) >= size:
            return (shape[0] // size, shape[1] // size, shape[2])
        case Reshape("flat"):
            return (math.prod(shape),)
        case Reshape("rows"):
            return (shape[0], shape[1] * shape[2])
        case Reshape("last"):
            return shape[1:]
        case Activation() | Normalization():
            return shape
    raise InputError(f"network {text!r}: a sample of shape {shape} does not fit into {layer}.")


def parameter_shapes(block: Block) -> dict[str, Shape]:
    """Return name -> shape of what a block trains; matrices are (outputs, inputs)."""
    shapes: dict[str, Shape] = {}
    shape = block.input_shape
    for layer in block.layers:
        after = output_shape("", layer, shape)
        match layer:
            case Dense(units):
                shapes |= {"weight": (units, shape[0]), "bias": (units,)}
            case Convolution(channels, kernel):
                shapes |= {"weight": (channels, kernel * kernel * shape[2]), "bias": (channels,)}
            case Recurrent(_, units):
                rows = layer.gates * units
                shapes |= {"weight": (rows, shape[1]), "recurrent": (rows, units), "bias": (rows,)}
            case Normalization():
                shapes |= {"scale": (shape[-1],), "shift": (shape[-1],)}
        shape = after
    return {f"{block.name}.{name}": value for name, value in shapes.items()}


def operations(block: Block) -> int:
    """Return about how many floating-point operations one sample takes in a block.

    Those of products, and what functions of every output cost beside them.
    """
    total, shape = 0, block.input_shape
    for layer in block.layers:
        after = output_shape("", layer, shape)
        match layer:
            case Dense(units):
                total += 2 * units * shape[0]
            case Convolution(channels, kernel):
                total += 2 * channels * kernel * kernel * shape[2] * math.prod(after[:2])
            case Recurrent(_, units):
                total += 2 * layer.gates * units * (shape[1] + units) * shape[0]
            case Activation() | Normalization():
                total += _FUNCTION * math.prod(shape)
        shape = after
    return total


def initial_parameters(network: Network, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield names and starting values: uniform, of variance 1 / fan-in (2 / fan-in for a ReLU).

    One at a time, so that a copy in fewer bits never meets the whole in float32.
    """
    for block in network.blocks:
        relu = any(layer == Activation("relu") for layer in block.layers)
        lstm = any(isinstance(layer, Recurrent) and layer.kind == "lstm" for layer in block.layers)
        for name, shape in parameter_shapes(block).items():
            if len(shape) == 2:
                bound = np.float32(math.sqrt((6 if relu else 3) / shape[1]))
                values = Key(seed, 0).generator("weight", name).random(shape, np.float32)
                values -= np.float32(0.5)
                values *= 2 * bound
            else:
                values = np.full(shape, name.endswith(".scale"), np.float32)
                if lstm and name.endswith(".bias"):  # remember by default: the second gate keeps
                    units = block.output_shape[-1]
                    values[units : 2 * units] = 1
            yield name, values
