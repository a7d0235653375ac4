"""Forward and backward of every layer of a small network in NumPy; samples first, channels last."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.formats.network import (
    Activation,
    Convolution,
    Dense,
    Layer,
    Normalization,
    Pool,
    Recurrent,
    Reshape,
)
from edge_train.runtimes.numpy.activations import Emit, Read, activate, through_activation
from edge_train.runtimes.numpy.recurrent import before, recur, recurrent_backward

Statistics = tuple[Array, Array]  # mean and variance per channel of a calibrated batch norm

_COLUMN_BYTES = 1 << 20  # patches of a convolution that exist at once; fits a second-level cache
_VARIANCE_FLOOR = np.float32(1e-5)


def forward(
    layer: Layer,
    read: Read,
    inputs: Array,
    *,
    statistics: Statistics | None = None,
    reuse: bool = False,
) -> tuple[Array, Any]:
    """Return a layer's outputs, and exactly what its backward needs.

    Args:
      inputs: (samples, ...) float32.
      statistics: of a batch normalization: what to use in place of the batch's own.
      reuse: whether an activation may overwrite its inputs, since nobody needs them any more.
    """
    match layer:
        case Dense():
            outputs = inputs @ read("weight").T
            outputs += read("bias")
            return outputs, inputs
        case Convolution():
            return convolve(layer, read("weight"), read("bias"), inputs), inputs
        case Recurrent():
            return recur(layer, read("weight"), read("recurrent"), read("bias"), inputs)
        case Activation(kind):
            outputs = activate(kind, inputs, inputs if reuse else None)
            return outputs, outputs
        case Normalization():
            return normalize(layer, read("scale"), read("shift"), inputs, statistics)
        case Pool("max", size):
            outputs, where = pool_max(inputs, size)
            return outputs, (where, inputs.shape)
        case Pool(_, size):
            return pool_mean(inputs, size), inputs.shape
        case Reshape(kind):
            return _reshaped(kind, inputs), inputs.shape


def backward(
    layer: Layer, saved: Any, read: Read, error: Array, emit: Emit, *, propagate: bool, needed: bool
) -> Array | None:
    """Emit the layer's parameter gradients for `error` at its outputs; return that at its inputs.

    Args:
      saved: what `forward` gave.
      error: (samples, ...) gradient of the loss with respect to the outputs; it may be changed.
      propagate: whether the error goes on to earlier rows of a sequence. False takes the state
        before each row for a constant, which is all that a local rule may know.
      needed: whether the error at the inputs is wanted; else layers may return None.
    """
    match layer:
        case Dense():
            passed = error @ read("weight") if needed else None
            emit("weight", error.T @ saved)
            emit("bias", error.sum(axis=0))
            return passed
        case Convolution():
            passed = unconvolve(layer, read("weight"), error, saved.shape) if needed else None
            weight, bias = convolution_gradient(layer, saved, error)
            emit("weight", weight)
            del weight
            emit("bias", bias)
            return passed
        case Recurrent():
            return recurrent_backward(layer, saved, read, error, emit, propagate, needed)
        case Activation(kind):
            return through_activation(kind, saved, error)
        case Normalization():
            return _normalization_backward(layer, saved, read, error, emit)
        case Pool("max", size):
            where, shape = saved
            return _pool_max_backward(error, where, shape, size)
        case Pool(_, size):
            return _pool_mean_backward(error, saved, size)
        case Reshape("last"):
            passed = np.zeros(saved, np.float32)
            passed[:, -1] = error
            return passed
        case Reshape():
            return error.reshape(saved)


def _reshaped(kind: str, inputs: Array) -> Array:
    if kind == "flat":
        return inputs.reshape(len(inputs), -1)
    if kind == "rows":
        return inputs.reshape(*inputs.shape[:2], -1)
    return inputs[:, -1]


def rows_read(layer: Layer, part: str, inputs: Array, saved: Any) -> Iterator[Array]:
    """Yield what a matrix of a layer is multiplied with, (rows, inputs) float32, in parts.

    Args:
      part: the matrix; of a recurrent layer there are two.
      saved: what `forward` gave.
    """
    match layer:
        case Dense():
            yield inputs
        case Convolution():
            for _, columns, _ in _columns(layer, inputs):
                yield columns
        case Recurrent():
            read = before(saved.outputs) if part == "recurrent" else inputs
            yield read.reshape(-1, read.shape[-1])
        case Activation() | Normalization() | Pool() | Reshape():
            pass  # without matrices


# ----------------------------------------------------------------------------- convolution


def convolve(layer: Convolution, weight: Array, bias: Array, inputs: Array) -> Array:
    """Return a convolution as matrix products over patches, a few samples at a time.

    Args:
      weight: (channels, kernel * kernel * input channels).
      inputs: (samples, height, width, input channels).
    """
    outputs: Array | None = None
    for some, columns, (height, width) in _columns(layer, inputs):
        if outputs is None:
            outputs = np.empty((len(inputs), height, width, layer.channels), np.float32)
        rows = outputs[some].reshape(-1, layer.channels)
        np.matmul(columns, weight.T, out=rows)
        rows += bias
    assert outputs is not None
    return outputs


def convolution_gradient(layer: Convolution, inputs: Array, error: Array) -> tuple[Array, Array]:
    """Return the gradients of weight and bias for `error` at the outputs."""
    weight: Array | None = None
    for some, columns, _ in _columns(layer, inputs):
        part = error[some].reshape(-1, layer.channels).T @ columns
        weight = part if weight is None else np.add(weight, part, out=weight)
    assert weight is not None
    return weight, error.reshape(-1, layer.channels).sum(axis=0)


def unconvolve(layer: Convolution, weight: Array, error: Array, shape: tuple[int, ...]) -> Array:
    """Return the error at the inputs, of `shape`, for `error` at the outputs."""
    samples, height, width, channels = shape
    kernel, pad, stride = layer.kernel, layer.padding, layer.stride
    rows, columns = error.shape[1:3]
    passed = np.empty(shape, np.float32)
    tile = _tile(rows * columns * weight.shape[1])
    for start in range(0, samples, tile):
        some = slice(start, min(start + tile, samples))
        patches = error[some].reshape(-1, layer.channels) @ weight
        patches = patches.reshape(-1, rows, columns, kernel, kernel, channels)
        padded = np.zeros((len(patches), height + 2 * pad, width + 2 * pad, channels), np.float32)
        for y in range(kernel):
            for x in range(kernel):
                down, across = y + stride * rows, x + stride * columns
                padded[:, y:down:stride, x:across:stride] += patches[:, :, :, y, x]
        passed[some] = padded[:, pad : pad + height, pad : pad + width]
    return passed


def _tile(numbers_per_sample: int) -> int:
    return max(1, _COLUMN_BYTES // (4 * numbers_per_sample))


def _columns(layer: Convolution, inputs: Array) -> Iterator[tuple[slice, Array, tuple[int, int]]]:
    """Yield samples, their patches (positions, kernel * kernel * channels) and the output size.

    One buffer is filled again and again: use the patches before asking for the next.
    """
    samples, height, width, channels = inputs.shape
    kernel, pad, stride = layer.kernel, layer.padding, layer.stride
    rows = (height + 2 * pad - kernel) // stride + 1
    columns = (width + 2 * pad - kernel) // stride + 1
    numbers = kernel * kernel * channels
    tile = min(_tile(rows * columns * numbers), samples)
    buffer = np.empty((tile, rows, columns, kernel, kernel, channels), np.float32)
    padded = np.zeros((tile, height + 2 * pad, width + 2 * pad, channels), np.float32)
    for start in range(0, samples, tile):
        some = slice(start, min(start + tile, samples))
        count = some.stop - some.start
        padded[:count, pad : pad + height, pad : pad + width] = inputs[some]
        n, y, x, c = padded.strides
        windows = as_strided(
            padded[:count],
            (count, rows, columns, kernel, kernel, channels),
            (n, y * stride, x * stride, y, x, c),
            writeable=False,
        )
        np.copyto(buffer[:count], windows)
        yield some, buffer[:count].reshape(-1, numbers), (rows, columns)


# ----------------------------------------------------------------------------- pooling


def _squares(inputs: Array, size: int) -> Iterator[Array]:
    """Yield the inputs at every place in a square, in reading order."""
    height, width = (side // size * size for side in inputs.shape[1:3])
    for y in range(size):
        for x in range(size):
            yield inputs[:, y:height:size, x:width:size]


def pool_max(inputs: Array, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """Return the largest value of every square and its place in it; of equals, the first."""
    places = _squares(inputs, size)
    outputs = next(places).copy()
    where = np.zeros(outputs.shape, np.uint8)
    for number, values in enumerate(places, 1):
        larger = values > outputs
        np.copyto(outputs, values, where=larger)
        np.copyto(where, np.uint8(number), where=larger)
    return outputs, where


def _pool_max_backward(
    error: Array, where: NDArray[np.uint8], shape: tuple[int, ...], size: int
) -> Array:
    passed = np.zeros(shape, np.float32)
    for number, target in enumerate(_squares(passed, size)):
        np.multiply(error, where == number, out=target)
    return passed


def pool_mean(inputs: Array, size: int) -> Array:
    """Return the mean of every square."""
    places = _squares(inputs, size)
    outputs = next(places).copy()
    for values in places:
        outputs += values
    outputs *= np.float32(1 / size**2)
    return outputs


def _pool_mean_backward(error: Array, shape: tuple[int, ...], size: int) -> Array:
    passed = np.zeros(shape, np.float32)
    error *= np.float32(1 / size**2)
    for target in _squares(passed, size):
        target[:] = error
    return passed


# ----------------------------------------------------------------------------- normalization


def _normalized_axes(layer: Normalization, inputs: Array) -> tuple[int, ...]:
    if layer.kind == "batch":
        return tuple(range(inputs.ndim - 1))
    return (2,) if inputs.ndim == 3 else tuple(range(1, inputs.ndim))


def channel_statistics(parts: Sequence[Array]) -> Statistics:
    """Return mean and variance of every channel over all else, in all parts together."""
    axes = tuple(range(parts[0].ndim - 1))
    if len(parts) == 1:
        return parts[0].mean(axis=axes), parts[0].var(axis=axes)
    shares = np.array([len(part) for part in parts], np.float64) / sum(map(len, parts))
    means = np.stack([part.mean(axis=axes) for part in parts]).astype(np.float64)
    variances = np.stack([part.var(axis=axes) for part in parts])
    mean = shares @ means
    variance = shares @ (variances + np.square(means - mean))
    return mean.astype(np.float32), variance.astype(np.float32)


def normalize(
    layer: Normalization,
    scale: Array,
    shift: Array,
    inputs: Array,
    statistics: Statistics | None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return scaled and shifted inputs of zero mean and unit variance, and what backward needs."""
    axes = _normalized_axes(layer, inputs)
    if layer.kind == "batch" and statistics is not None:
        mean, variance = statistics
    else:
        mean, variance = inputs.mean(axis=axes, keepdims=True), inputs.var(axis=axes, keepdims=True)
    steepness = (1 / np.sqrt(variance + _VARIANCE_FLOOR)).astype(np.float32)
    standard = inputs - mean
    standard *= steepness
    outputs = standard * scale
    outputs += shift
    return outputs, (standard, steepness)


def _normalization_backward(
    layer: Normalization, extra: tuple[Array, Array], read: Read, error: Array, emit: Emit
) -> Array:
    standard, steepness = extra
    axes = _normalized_axes(layer, standard)
    others = tuple(range(standard.ndim - 1))
    scale = read("scale").copy()
    emit("scale", np.sum(error * standard, axis=others))
    emit("shift", error.sum(axis=others))
    error *= scale
    along = np.mean(error * standard, axis=axes, keepdims=True)
    error -= error.mean(axis=axes, keepdims=True)
    error -= standard * along
    error *= steepness
    return error
